"""How long a statement may run, and wait for a lock: a moment for a web request, longer for background work (SPEC §19).

A row that somebody holds locked must not stop the web: each request that waits for it keeps a thread, until no thread
is left. So the application's role carries the time-outs of web requests. A session's own `SET` would be lost behind
PgBouncer, where each transaction may run in another session; schedulers and commands override them by transaction.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections, transaction
from psycopg import sql
from psycopg.pq import TransactionStatus

from pipedai import env


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`lock_timeout` and `statement_timeout`, spelled as PostgreSQL shows them; "0" is no limit."""

    lock: str
    statement: str


WEB = Timeouts(lock="2s", statement="10s")
# One thread does all jobs of a scheduler, so a batch that can't go on must fail at some time: it is rolled back and
# tried again, and between its tries the other jobs have their turns.
SCHEDULER = Timeouts(lock="30s", statement="5min")
# Who started a command can stop it.
COMMAND = Timeouts(lock="0", statement="0")

# As `SET LOCAL`, both in one statement.
_SET_LOCAL = (
    "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)"
)
# What names the session's server and who logs in there, in Django's settings of a database.
_PLACE = ("NAME", "USER", "PASSWORD", "HOST", "PORT")


class PooledSession(Exception):  # noqa: N818
    """There is no session of our own to be had; the message is one sentence."""


def set_timeouts_of_role(timeouts: Timeouts = WEB) -> None:
    """Have every session that the application's role begins in this database from now on start with these time-outs.

    A role may do so for itself. Sessions that are open keep what they began with. Other databases of the role, such as
    those of tests, are left alone.
    """
    alter = sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET {} = {}")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")  # PgBouncer may know it by another name
        (name,) = cursor.fetchone()
        for setting, value in (
            ("lock_timeout", timeouts.lock),
            ("statement_timeout", timeouts.statement),
        ):
            cursor.execute(alter.format(sql.Identifier(name), sql.Identifier(setting), value))


def session_timeouts(database: Any = connection) -> Timeouts:
    """The time-outs that hold in a connection's session."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
        )
        return Timeouts(*cursor.fetchone())


@contextmanager
def overriding(timeouts: Timeouts) -> Iterator[None]:
    """Within, each transaction of this thread's connection begins with these time-outs, and a statement outside of any
    runs in a transaction of its own, since `SET LOCAL` means nothing without one.

    What can't run in a transaction needs `session_without_timeouts`.
    """
    values = [timeouts.lock, timeouts.statement]

    def execute_under(
        execute: Callable[..., Any],
        statement: str,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        database = context["connection"]
        if database.get_autocommit():
            with transaction.atomic(using=database.alias):
                execute(_SET_LOCAL, values, False, context)
                return execute(statement, params, many, context)
        if database.connection.info.transaction_status == TransactionStatus.IDLE:
            execute(_SET_LOCAL, values, False, context)
        return execute(statement, params, many, context)

    with connection.execute_wrapper(execute_under):
        yield


@contextmanager
def session_without_timeouts() -> Iterator[None]:
    """Within, this thread's connection is another one, whose session began without time-outs: for what can't run in a
    transaction, such as building an index CONCURRENTLY, or VACUUM.

    Where DATABASE_URL goes through a pooler, the session is had past it, by DATABASE_LISTEN_URL. Raises PooledSession
    if there is a pooler between all the same: no setting is sure to be in the session that a statement runs in.
    """
    database = connections[DEFAULT_DB_ALIAS]
    kept = database.settings_dict, database.execute_wrappers
    database.close()
    database.settings_dict, database.execute_wrappers = _without_timeouts(kept[0]), []
    try:
        _check_session()
        yield
    finally:
        database.close()
        database.settings_dict, database.execute_wrappers = kept


def _without_timeouts(ours: dict[str, Any]) -> dict[str, Any]:
    """Django's settings of the database, with the time-outs among what the session is told at its start."""
    place, options = {}, dict(ours["OPTIONS"])
    if settings.DATABASE_LISTEN_URL:
        direct = env.database_config(settings.DATABASE_LISTEN_URL)
        # What another role made, ours would not own.
        if direct["USER"] == ours["USER"]:
            place = {name: direct[name] for name in _PLACE}
            options = {**direct["OPTIONS"], **_of_django(options)}
    told = f"{options.get('options', '')} -c lock_timeout=0 -c statement_timeout=0"
    return {**ours, **place, "OPTIONS": {**options, "options": told.strip()}}


def _of_django(options: dict[str, Any]) -> dict[str, Any]:
    """What is no parameter of libpq's."""
    names = ("server_side_binding", "prepare_threshold")
    return {name: options[name] for name in names if name in options}


def _check_session() -> None:
    try:
        found = session_timeouts()
    except OperationalError as error:
        if "startup parameter" not in str(error):  # PgBouncer's words for what it does not pass on
            raise
        found = None
    if found != COMMAND:
        raise PooledSession(
            "There is a pooler between, such as PgBouncer, which passes on no settings: set DATABASE_LISTEN_URL to the"
            " database itself, with the same role as in DATABASE_URL."
        )
