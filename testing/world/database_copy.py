"""Copies the migrated test database, for tests that need real commits, and drops the copy afterwards."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import connection, connections

from pipedai.ids import new_id


@contextmanager
def database_copy(template: str | None = None) -> Iterator[str]:
    """Makes a database for the time of the block, a copy of the template or of Django's own, and returns its name.

    It closes this process's own connections, because a database that is in use can't be copied.
    """
    own = connections.databases["default"]["NAME"]
    template = template or own
    name = f"{own}_{new_id().hex[-12:]}"
    copy_database(template, name)
    try:
        yield name
    finally:
        # WITH (FORCE) is not allowed to end the server's own autovacuum, while a plain DROP waits for it.
        end_sessions(name)
        run_outside(f'DROP DATABASE "{name}"')


@contextmanager
def instead_of_the_default(name: str) -> Iterator[None]:
    """Makes Django use this database, in this thread and in those that start meanwhile."""
    settings = connections.databases["default"]
    usual = settings["NAME"]
    connections.close_all()
    settings["NAME"] = name
    try:
        yield
    finally:
        connections.close_all()
        settings["NAME"] = usual


def end_sessions(name: str) -> None:
    """Ends all sessions in a database, such as one that a failed test has left open."""
    run_outside(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"  # noqa: S608 - our own name
        f" WHERE datname = '{name}' AND usename = current_user"
    )


def copy_database(template: str, name: str) -> None:
    """Copies a database, after closing this process's own connections. Nobody else may have one to it."""
    connections.close_all()
    # Copying the files takes a seventh of the time of the default strategy, which writes all to the WAL.
    run_outside(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')


def run_outside(*statements: str) -> None:
    """Runs statements one after another, outside of transactions, on a connection to no database of the tests.

    The process keeps this connection, since each test with a copy of its own needs it several times, until
    `stop_running_outside`.
    """
    outside = _outside()
    for statement in statements:
        outside.execute(statement)


def stop_running_outside() -> None:
    """Closes the connection that `run_outside` keeps."""
    _outside().close()
    _outside.cache_clear()


@functools.cache
def _outside() -> psycopg.Connection:
    parameters = connection.get_connection_params() | {"dbname": "postgres"}
    return psycopg.connect(**parameters, autocommit=True)
