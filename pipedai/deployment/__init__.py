"""Finds out what is wrong with a deployment, by probes that the apps register (SPEC §10)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db import DatabaseError

from pipedai.sql import reason


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found, in one sentence.

    `remedy` says what to do, a line for each step, and is empty if all is well. `unknown` is true if the probe could
    not look because of a problem that another probe has found, such as a database that is away. It is then no further
    problem.
    """

    says: str
    remedy: str = ""
    unknown: bool = False

    @property
    def ok(self) -> bool:
        """Whether the probe has looked and all is well, so that there is no remedy."""
        return not self.remedy and not self.unknown


@dataclass(frozen=True, slots=True)
class Probe:
    """One check of a deployment. `look` returns what it found and changes nothing. It may raise DatabaseError."""

    name: str
    look: Callable[[], Finding]
    needs_database: bool = True


DATABASE = "database"
MIGRATIONS = "migrations"

_registered: list[Probe] = []


def register_probe(probe: Probe) -> None:
    """Adds a probe. Call it from `AppConfig.ready()`. Probes run in the order in which they were added."""
    _registered.append(probe)


def look_at_all() -> Iterator[tuple[Probe, Finding]]:
    """Runs every probe and yields it with its finding.

    If a probe needs the database and the database is away, its finding is `unknown` and is no further problem. So it is
    if migrations are not applied and the database therefore refuses the probe's query.
    """
    reachable = migrated = True
    for probe in _registered:
        if probe.needs_database and not reachable:
            yield probe, Finding("Unknown without the database.", unknown=True)
            continue
        finding = _look(probe, migrated=migrated)
        if probe.name == DATABASE:
            reachable = finding.ok
        elif probe.name == MIGRATIONS:
            migrated = finding.ok
        yield probe, finding


def _look(probe: Probe, *, migrated: bool) -> Finding:
    try:
        return probe.look()
    except DatabaseError as error:
        if not migrated:
            return Finding("Unknown until the migrations are applied.", unknown=True)
        return Finding(
            f"The database refused to answer: {reason(error)}.",
            "Bring the schema up to date with `manage.py release`, or see the database's log.",
        )
