"""Makes the migrated test database of each process of the suite. The first process migrates, and the others copy."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases

from pipedai.embedded import locks
from pipedai.embedded.borrowing import make_database
from testing.world.database_copy import (
    copy_database,
    end_sessions,
    run_outside,
    stop_running_outside,
)

# A migration takes seconds, and under load a minute.
_PATIENCE_SECONDS = 300


def set_up(shared: Path | None) -> list[Any]:
    """Makes Django's test database, and returns what `tear_down` needs.

    `shared` is a directory of all processes of the suite, or None if there is one process. Of several, the first one
    leaves a database for the others to copy, to which nobody connects.
    """
    make_database()
    if shared is None:
        return _migrated(keepdb=False)
    with _alone(shared):
        if _ready(shared).exists():
            run_outside(f'DROP DATABASE IF EXISTS "{_own()}"')
            copy_database(_kept(), _own())
            return _migrated(keepdb=True)
        made = _migrated(keepdb=False)
        run_outside(f'DROP DATABASE IF EXISTS "{_kept()}"')
        copy_database(_own(), _kept())
        _ready(shared).touch()
        return made


def tear_down(made: list[Any], shared: Path | None) -> None:
    """Drops the test database, and the one for copying. A process that starts later migrates again."""
    connections.close_all()
    end_sessions(connection.settings_dict["NAME"])
    teardown_databases(made, verbosity=0)
    if shared is not None:
        with _alone(shared):
            _ready(shared).unlink(missing_ok=True)
            run_outside(f'DROP DATABASE IF EXISTS "{_kept()}"')
    stop_running_outside()


def _migrated(*, keepdb: bool) -> list[Any]:
    return setup_databases(verbosity=0, interactive=False, keepdb=keepdb, aliases={"default": None})


def _alone(shared: Path) -> AbstractContextManager[int]:
    return locks.only_one(shared / "first-database.lock", seconds=_PATIENCE_SECONDS)


def _ready(shared: Path) -> Path:
    return shared / "first-database.ready"


def _own() -> str:
    name: str = connection.settings_dict["TEST"]["NAME"]
    return name


def _kept() -> str:
    """Returns the name of the database for copying. The names of the processes' own end with _gw0 and so on."""
    return f"{_own().rpartition('_')[0]}_kept"
