"""Whatever error occurs, no statement and no value reaches the server's log."""

import os
import signal
import threading

import psycopg
import pytest

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.embedded.tests.processes import ask, eventually

pytestmark = pytest.mark.long

SECRET = "planted-secret-7f3a"


def test_the_log_tells_of_starts_and_stops(running_server: EmbeddedPostgres):
    assert "ready to accept connections" in running_server.layout.log.read_text()


def test_failing_statements_leave_no_value_in_the_log(running_server):
    params = running_server.connection_params()
    with psycopg.connect(**params, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE t (a text UNIQUE CHECK (length(a) < 30), b int)")
        # A session may change this setting for itself, but the log must stay free of values.
        connection.execute("SET log_parameter_max_length_on_error = -1")
        connection.execute("INSERT INTO t VALUES (%s, 1)", [SECRET])
        for statement, values in (
            (f"SELECT '{SECRET}'::int", []),
            (f'SELECT "{SECRET}"', []),
            (f"SELEKT {SECRET.replace('-', '_')}", []),
            ("SELECT %s::text::uuid", [SECRET]),
            ("INSERT INTO t VALUES (%s, 2)", [SECRET]),
            ("INSERT INTO t VALUES (%s, 3)", [SECRET * 3]),
            (f"DO $$ BEGIN RAISE WARNING '{SECRET}'; RAISE EXCEPTION '{SECRET}'; END $$", []),
            (f"SET statement_timeout = 20; SELECT pg_sleep(5), '{SECRET}'", []),
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(statement.encode(), values or None)
        for setting in ("log_statement", "log_min_error_statement", "log_min_messages"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SET {setting} = debug5".encode())
    log = running_server.layout.log.read_text()
    assert SECRET not in log
    assert SECRET.replace("-", "_") not in log


def test_a_crashing_session_leaves_no_statement_in_the_log(made_server):
    """With its default settings PostgreSQL logs the statement that a killed process was running."""
    made_server.ensure_running()
    params = made_server.connection_params()
    with psycopg.connect(**params, autocommit=True) as connection:
        pid = connection.info.backend_pid

        def run() -> None:
            with pytest.raises(psycopg.OperationalError):
                connection.execute(f"SELECT pg_sleep(60), '{SECRET}'".encode())

        running = threading.Thread(target=run)
        running.start()
        eventually(
            lambda: ask(
                made_server, f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {pid}"
            )
        )
        os.kill(pid, signal.SIGKILL)
        running.join()
    eventually(lambda: "terminated by signal 9" in made_server.layout.log.read_text())
    made_server.ensure_running()
    assert SECRET not in made_server.layout.log.read_text()


def test_the_passwords_are_not_in_the_log(running_server):
    log = running_server.layout.log.read_text()
    for role in ("pipedai", "postgres"):
        assert running_server.connection_params(role=role)["password"] not in log
