"""Finds out what is wrong with a deployment, by probes that the apps register (SPEC §10)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db import DatabaseError

from pipedai.sql import reason


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found, in one sentence.

    `remedy` says what to do, a line for each step, and is empty if all is well.
    """

    says: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is well, so that there is no remedy."""
        return not self.remedy


@dataclass(frozen=True, slots=True)
class Probe:
    """One check of a deployment. `look` returns what it found and changes nothing. It may raise DatabaseError."""

    name: str
    look: Callable[[], Finding]
    needs_database: bool = True


DATABASE = "database"

_registered: list[Probe] = []


def register_probe(probe: Probe) -> None:
    """Adds a probe. Call it from `AppConfig.ready()`. Probes run in the order in which they were added."""
    _registered.append(probe)


def look_at_all() -> Iterator[tuple[Probe, Finding]]:
    """Runs every probe and yields it with its finding. If the database is away, the probes that need it are skipped."""
    reachable = True
    for probe in _registered:
        if probe.needs_database and not reachable:
            yield probe, Finding("Unknown without the database.", "See above.")
            continue
        finding = _look(probe)
        if probe.name == DATABASE:
            reachable = finding.ok
        yield probe, finding


def _look(probe: Probe) -> Finding:
    try:
        return probe.look()
    except DatabaseError as error:
        return Finding(
            f"The database refused to answer: {reason(error)}.",
            "Bring the schema up to date with `manage.py release`, or see the database's log.",
        )
