"""Finds out what a deployment lacks: the probes that the apps register, and their findings (SPEC §10)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db import DatabaseError

from pipedai.sql import reason


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe saw, in one sentence; `remedy`, what to do about it (a line each), is empty when all is well."""

    says: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to do."""
        return not self.remedy


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to look at. `look` changes nothing; it may raise DatabaseError."""

    name: str
    look: Callable[[], Finding]
    needs_database: bool = True


DATABASE = "database"

_registered: list[Probe] = []


def register_probe(probe: Probe) -> None:
    """Adds a probe. Call it from `AppConfig.ready()`; they run in the order of their registration."""
    _registered.append(probe)


def look_at_all() -> Iterator[tuple[Probe, Finding]]:
    """Every probe and its finding. Without a database, what needs one is not looked at but said to be unknown."""
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
