"""`manage.py release` works when several run at once, when tables are in use, and after interrupted index builds."""

import os
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.db.migrations.recorder import MigrationRecorder

from pipedai import timeouts
from pipedai.timeouts import WEB, OutOfPatience, migrate_alone, session_timeouts
from pipedai.version import VERSION
from testing.processes import warm_start
from testing.processes.racing import Started
from testing.processes.stuck_rows import held, shorten_timeouts, wait_until_somebody_waits
from testing.processes.web_process import url_of
from testing.processes.worker_process import until
from testing.world.runs import Runs


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def empty_database(own_database):
    """Makes a database without tables, and returns its name."""
    name = f"{own_database}_empty"
    with connection._nodb_cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    yield name
    with connection._nodb_cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}"')


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def add_column() -> None:
    with transaction.atomic():
        run("ALTER TABLE run ADD COLUMN new integer")


class in_another_session:  # noqa: N801 - used like a function
    """Runs a statement in a transaction of another connection, which ends with the block."""

    def __init__(self, statement: str) -> None:
        self._statement = statement

    def __enter__(self):
        self.connection = connection.copy()
        self.connection.set_autocommit(False)
        with self.connection.cursor() as cursor:
            cursor.execute(self._statement)
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def test_of_two_releases_at_once_one_migrates_and_the_other_waits(empty_database):
    environment = {**os.environ, "DATABASE_URL": url_of(empty_database)}

    def release(_number: int) -> subprocess.CompletedProcess[str]:
        return warm_start.run(["manage.py", "release"], environment)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(release, range(2)))

    assert [done.returncode for done in both] == [0, 0], both
    idle, busy = sorted((done.stdout for done in both), key=len)
    assert idle.count("Applying") == 0
    assert "No migrations to apply." in idle
    assert busy.count("Applying audit.0001_initial... OK") == 1
    for said in (idle, busy):
        assert re.search(rf"process\.started.*version={re.escape(VERSION)}", said.splitlines()[0])


REPLACED = {
    "triggers": ("0002_tenant_keys", "0012_tick_without_run"),
    "notices": ("0007_results_apart",),
    "workers": ("0004_approvals",),
    "workspaces": ("0007_authorizing_in_schedulers",),
}


def test_a_database_with_all_migrations_of_before_is_up_to_date(own_database, capsys):
    for app, names in REPLACED.items():
        for name in names:
            MigrationRecorder(connection).record_applied(app, name)
    call_command("release")
    assert "No migrations to apply." in capsys.readouterr().out


def test_a_release_waits_for_another_and_then_works(own_database, said):
    order = []

    def other() -> None:
        def work() -> None:
            begun.set()
            until(lambda: said)
            order.append("other")

        migrate_alone(work, patience=10, say=said.append)
        connections.close_all()

    begun = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(60)
    migrate_alone(lambda: order.append("this"), patience=10, say=said.append)
    thread.join()
    assert order == ["other", "this"]
    assert said == ["Another release is at work: waiting for it."]


def test_a_release_gives_up_when_another_takes_too_long(own_database, said):
    lock = "SELECT pg_advisory_xact_lock(hashtext('pipedai release'))"
    with in_another_session(lock), pytest.raises(OutOfPatience, match="still at work"):
        migrate_alone(lambda: pytest.fail("two at once"), patience=0, say=said.append)


def test_the_lock_goes_with_the_process_that_held_it(own_database, said):
    with in_another_session("SELECT pg_advisory_xact_lock(hashtext('pipedai release'))") as dying:
        dying.connection.connection.pgconn.finish()
        migrate_alone(lambda: None, patience=5, say=said.append)


def test_an_index_is_built_concurrently_while_another_release_waits(own_database, said):
    """If the waiting release had a snapshot, each of the two would wait for the other."""

    def build() -> None:
        waiting.start()
        until(lambda: said)
        run("CREATE INDEX CONCURRENTLY late ON run (queued_at)")

    def wait() -> None:
        migrate_alone(lambda: None, patience=20, say=said.append)
        connections.close_all()

    waiting = threading.Thread(target=wait)
    migrate_alone(build, patience=20, say=said.append)
    waiting.join()
    assert timeouts.invalid_indexes() == []


def test_a_table_in_use_is_tried_again(own_database, said, monkeypatch):
    monkeypatch.setattr(timeouts, "LOCK_SECONDS", 0.1)
    with in_another_session("LOCK TABLE run IN ACCESS SHARE MODE") as reader:

        def say(line: str) -> None:
            said.append(line)
            reader.connection.rollback()

        migrate_alone(add_column, patience=20, say=say)
    assert said == ["A table to be changed is in use: trying again in 1 s."]
    run("SELECT new FROM run")


def test_nobody_queues_up_behind_a_release_that_waits_for_a_table(own_database, said, monkeypatch):
    monkeypatch.setattr(timeouts, "LOCK_SECONDS", 0.1)
    with (
        in_another_session("LOCK TABLE run IN ACCESS SHARE MODE"),
        pytest.raises(OutOfPatience, match="in use"),
    ):
        migrate_alone(add_column, patience=0.5, say=said.append)
    # The time-out held in the transaction only, so the next user of this session has none.
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)


def test_an_index_is_built_however_long_that_takes(own_database, monkeypatch):
    """CREATE INDEX CONCURRENTLY runs outside a transaction, and waits for all transactions that began before it."""
    shorten_timeouts(lock="100ms", statement="100ms")

    def migrate(*_: object, **__: object) -> None:
        run("CREATE INDEX CONCURRENTLY late ON run (queued_at)")

    def release() -> None:
        call_command("release", verbosity=0)

    monkeypatch.setattr("pipedai.management.commands.release.call_command", migrate)
    with held("UPDATE run SET attempt = attempt"):
        releasing = Started(release)
        wait_until_somebody_waits(0.4)
    assert releasing.answer() is None
    assert timeouts.invalid_indexes() == []
    connection.close()
    assert session_timeouts() == WEB, "and the role has its time-outs"


def test_an_interrupted_index_build_is_named_with_its_remedy(committed_cast, monkeypatch):
    def migrate(*_: object, **__: object) -> None:
        run("CREATE UNIQUE INDEX CONCURRENTLY late ON run (attempt)")

    runs = Runs.of(committed_cast)
    runs.queue()
    runs.queue()
    monkeypatch.setattr("pipedai.management.commands.release.call_command", migrate)
    for _ in ("fails", "finds it there"):
        with pytest.raises(CommandError, match="built late: run DROP INDEX CONCURRENTLY"):
            call_command("release", verbosity=0)


def test_a_database_that_does_not_answer_is_one_sentence():
    url = "postgres://u:not-to-be-told@127.0.0.1:1/db"
    done = warm_start.run(["manage.py", "release"], {**os.environ, "DATABASE_URL": url})
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: The database does not answer: ")
    assert "Traceback" not in done.stderr
    assert "not-to-be-told" not in done.stderr
