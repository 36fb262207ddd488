"""Limits how long a statement may run and wait for a lock: seconds in a web request, longer elsewhere (SPEC §19).

Requests that wait for a locked row keep threads, so the role's defaults are those of web requests. Others set their own
in each transaction, because PgBouncer may lose a plain `SET`.
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
    lock: str
    statement: str


WEB = Timeouts(lock="2s", statement="10s")
# One thread runs all jobs of a scheduler, so a batch that hangs must fail after some time. The batch is rolled back and
# tried again, and the other jobs run between the tries.
SCHEDULER = Timeouts(lock="30s", statement="5min")
# The time-outs of a command for operators: none, because the person who started the command can stop it.
COMMAND = Timeouts(lock="0", statement="0")

# Sets both time-outs until the transaction ends, as two `SET LOCAL` would do, but in one statement.
_SET_LOCAL = (
    "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)"
)
# The keys of Django's database settings that say where and as whom to connect.
_PLACE = ("NAME", "USER", "PASSWORD", "HOST", "PORT")


class PooledSession(Exception):  # noqa: N818
    """There is a pooler before the database, so that we get no session of our own. The message is one sentence."""


def set_timeouts_of_role(timeouts: Timeouts = WEB) -> None:
    """Make these the role's defaults in this database, which a role may do, for sessions that begin later."""
    alter = sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET {} = {}")
    with transaction.atomic(), connection.cursor() as cursor:
        # The database's name is asked from PostgreSQL, because a PgBouncer may use another name for it in DATABASE_URL.
        cursor.execute("SELECT current_database()")
        (name,) = cursor.fetchone()
        for setting, value in (
            ("lock_timeout", timeouts.lock),
            ("statement_timeout", timeouts.statement),
        ):
            cursor.execute(alter.format(sql.Identifier(name), sql.Identifier(setting), value))


def session_timeouts(database: Any = connection) -> Timeouts:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
        )
        return Timeouts(*cursor.fetchone())


@contextmanager
def overriding(timeouts: Timeouts) -> Iterator[None]:
    """Set these time-outs in each transaction of this thread's connection, for the block. A single statement gets a
    transaction, because `SET LOCAL` needs one. If that is impossible, use `session_without_timeouts`.
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
    """Give this thread, for the block, a session without time-outs, for statements that can't run in a transaction,
    such as CONCURRENTLY. It goes past a pooler, to DATABASE_LISTEN_URL. Raises PooledSession if there is a pooler
    nevertheless.
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
    """Return Django's settings of the database, changed so that a session starts without time-outs."""
    place, options = {}, dict(ours["OPTIONS"])
    if settings.DATABASE_LISTEN_URL:
        direct = env.database_config(settings.DATABASE_LISTEN_URL)
        # DATABASE_LISTEN_URL is used only if it names the same role as DATABASE_URL. Tables and indexes that another
        # role made would not belong to our role.
        if direct["USER"] == ours["USER"]:
            place = {name: direct[name] for name in _PLACE}
            options = {**direct["OPTIONS"], **_of_django(options)}
    told = f"{options.get('options', '')} -c lock_timeout=0 -c statement_timeout=0"
    return {**ours, **place, "OPTIONS": {**options, "options": told.strip()}}


def _of_django(options: dict[str, Any]) -> dict[str, Any]:
    """Return the connection options that Django itself reads, without those for libpq."""
    names = ("server_side_binding", "prepare_threshold")
    return {name: options[name] for name in names if name in options}


def _check_session() -> None:
    try:
        found = session_timeouts()
    except OperationalError as error:
        # This is PgBouncer's error message if it refuses the options that set the time-outs.
        if "startup parameter" not in str(error):
            raise
        found = None
    if found != COMMAND:
        raise PooledSession(
            "There is a pooler between, such as PgBouncer, which passes on no settings: set DATABASE_LISTEN_URL to the"
            " database itself, with the same role as in DATABASE_URL."
        )
