"""Registers rules for settings and probes of deployments with Django's check framework.

Settings that break a rule keep a process from starting. `manage.py check_deploy` runs the probes.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from pipedai.redaction import escape_control, redact_text

# Three tags: of rules that hold everywhere, because a setting that can't be read would crash the code that uses it; of
# rules that hold in production; and of probes.
READABLE, PRODUCTION, DEPLOYMENT = "readable", "production", "deployment"
DATABASE, MIGRATIONS = "database", "migrations"
# The id of what a probe could not look at.
UNKNOWN = "pipedai.unknown"

Rule = Callable[[], str | None]
Look = Callable[[], CheckMessage]

_numbers = count()


def rule(check_id: str, tag: str = PRODUCTION) -> Callable[[Rule], Rule]:
    """Registers a function that returns None, or a sentence on the problem that contains no key."""

    def register(broken: Rule) -> Rule:
        def check(**_: Any) -> list[Error]:
            sentence = broken()
            return [Error(escape_control(redact_text(sentence)), id=check_id)] if sentence else []

        checks.register(check, checks.Tags.security, tag, deploy=True)
        return broken

    return register


def problems(*tags: str) -> list[CheckMessage]:
    """Returns the rules with these tags that the settings break; those of production, if no tag is given."""
    found = checks.run_checks(tags=tags or (READABLE, PRODUCTION), include_deployment_checks=True)
    return sorted(found, key=lambda each: str(each.id))


def refuse_unfit_settings() -> None:
    """Raises ImproperlyConfigured for settings that can't be read, and in production for unsafe ones."""
    broken = problems() if settings.PRODUCTION else problems(READABLE)
    if broken:
        raise ImproperlyConfigured("\n".join(each.msg for each in broken))


class Probe:
    """One check of a deployment.

    `look` returns what it found: an Info if all is well, a Warning if an operator should know what follows from a
    choice of theirs, else an Error. The hint of the latter two says what to do, a line for each step. It changes
    nothing, and may raise DatabaseError.
    """

    tags: tuple[str, ...]

    def __init__(self, name: str, look: Look, *, needs_database: bool = True) -> None:
        self.name, self.look, self.needs_database = name, look, needs_database
        self.number = next(_numbers)

    def __call__(self, databases: Any = None, **_: Any) -> list[CheckMessage]:
        return [self.look()] if databases else []


def register_probe(name: str, look: Look, *, needs_database: bool = True) -> None:
    checks.register(Probe(name, look, needs_database=needs_database), DEPLOYMENT, deploy=True)


def look_at_all() -> Iterator[tuple[str, CheckMessage]]:
    """Runs every probe and yields its name with what it found.

    If a probe needs the database and the database is away, that is a Warning with the id UNKNOWN and no further
    problem. So it is if migrations are not applied and the database therefore refuses the probe's query.
    """
    checks_made: set[Any] = registry.deployment_checks
    probes = [each for each in checks_made if isinstance(each, Probe)]
    reachable = migrated = True
    for probe in sorted(probes, key=lambda each: each.number):
        if probe.needs_database and not reachable:
            yield probe.name, checks.Warning("Unknown without the database.", id=UNKNOWN)
            continue
        found = _look(probe, migrated=migrated)
        if probe.name == DATABASE:
            reachable = not found.is_serious()
        elif probe.name == MIGRATIONS:
            migrated = not found.is_serious()
        yield probe.name, found


def _look(probe: Probe, *, migrated: bool) -> CheckMessage:
    # The import stands here, because `pipedai.sql` needs settings that are fit.
    from pipedai.sql import reason

    try:
        return probe.look()
    except DatabaseError as error:
        if not migrated:
            return checks.Warning("Unknown until the migrations are applied.", id=UNKNOWN)
        return Error(
            f"The database refused to answer: {reason(error)}.",
            hint="Bring the schema up to date with `manage.py release`, or see the database's log.",
        )


# Importing this module registers its rules. It needs the names above.
from pipedai.checks import rules  # noqa: E402, F401
