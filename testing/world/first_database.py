"""Makes the migrated test database of each process of the suite, and one for copying. The first process migrates."""

import os
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases

from bin.suite import MIGRATED
from pipedai.embedded.cluster import only_one
from pipedai.embedded.server import of_settings
from testing.world.database_copy import (
    copy_database,
    end_sessions,
    run_outside,
    stop_running_outside,
)
from triggers.models import WebHeartbeat

# A migration takes seconds, and under load a minute.
_PATIENCE_SECONDS = 300


def set_up(shared: Path | None) -> list[Any]:
    """Makes Django's test database, and returns what `tear_down` needs.

    `shared` is a directory of all processes of the suite, or None if there is one process. The first process leaves a
    database for copies, to which nobody connects, so that it stays as small as it was made.
    """
    if server := of_settings():
        server.ensure_running()
    if shared is None:
        return _migrated_and_kept()
    with _alone(shared):
        _user(shared).touch()
        if not _ready(shared).exists():
            made = _migrated_and_kept()
            _ready(shared).touch()
            return made
    # Django would migrate the copy once more, which takes a second even if there is nothing to do.
    usual = connection.settings_dict["NAME"]
    renew()
    _use(_own())
    return [(connection, usual, True)]


def renew() -> None:
    """Replaces this process's test database by a new copy, without the rows that rolled back tests have left in its
    files. PostgreSQL would read past them in all later tests.
    """
    end_sessions(_own())
    run_outside(f'DROP DATABASE IF EXISTS "{_own()}"')
    copy_database(kept(), _own())


def tear_down(made: list[Any], shared: Path | None) -> None:
    """Drops the test database, and after the last process the one for copying. Who starts later migrates again."""
    for_copying = kept()
    connections.close_all()
    end_sessions(_own())
    teardown_databases(made, verbosity=0)
    if shared is None:
        run_outside(f'DROP DATABASE "{for_copying}"')
    else:
        with _alone(shared):
            _user(shared).unlink()
            if not any(shared.glob("first-database.user-*")):
                _ready(shared).unlink()
                run_outside(f'DROP DATABASE "{for_copying}"')
    stop_running_outside()


def kept() -> str:
    """Returns the name of the database for copying. The names of the processes' own end with _gw0 and so on."""
    return f"{_own().partition('_gw')[0]}_kept"


def _migrated_and_kept() -> list[Any]:
    if os.environ.get(MIGRATED):
        made = _copied()
    else:
        made = setup_databases(
            verbosity=0, interactive=False, aliases={"default": None}, serialized_aliases=set()
        )
    _say_that_a_web_process_lives()
    run_outside(f'DROP DATABASE IF EXISTS "{kept()}"')
    copy_database(_own(), kept())
    return made


def _copied() -> list[Any]:
    """Copies the migrated database that bin/test has provided, which takes a hundredth of the time of migrating."""
    names = connection.settings_dict
    usual = names["NAME"]
    names["TEST"]["NAME"] = names["TEST"]["NAME"] or f"test_{usual}"
    copy_database(usual, _own())
    _use(_own())
    return [(connection, usual, True)]


def _use(name: str) -> None:
    connections.databases["default"]["NAME"] = connection.settings_dict["NAME"] = name


def _say_that_a_web_process_lives() -> None:
    """Makes leases count in each test's database, also where no web process of the test's own beats."""
    long_ago, far_ahead = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
    WebHeartbeat.objects.create(host="test", pid=1, reachable_since=long_ago, beat_at=far_ahead)


def _alone(shared: Path) -> AbstractContextManager[int]:
    return only_one(shared / "first-database.lock", seconds=_PATIENCE_SECONDS)


def _ready(shared: Path) -> Path:
    return shared / "first-database.ready"


def _user(shared: Path) -> Path:
    """Returns the file that says that this process needs the database for copying."""
    return shared / f"first-database.user-{os.getpid()}"


def _own() -> str:
    """Returns the name of this process's test database. A single process must have made it: Django names it then."""
    names = connection.settings_dict
    return str(names["TEST"]["NAME"] or names["NAME"])
