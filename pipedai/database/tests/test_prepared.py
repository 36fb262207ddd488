"""Statements that psycopg has prepared run without its cursor, and several in one round trip."""

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from operator import truediv

import psycopg
import pytest
from django.db import DatabaseError, DataError, OperationalError, connection, transaction
from psycopg.pq import TransactionStatus

from pipedai.database import base
from pipedai.sql import execute, execute_later, fetch_all, fetch_one, planned_for_values

pytestmark = pytest.mark.usefixtures("own_database")

READ = "SELECT n, n * %(factor)s AS product, NULL AS nothing FROM generate_series(1, 2) n"
ROWS = [{"n": 1, "product": 3, "nothing": None}, {"n": 2, "product": 6, "nothing": None}]
ADD = "INSERT INTO kept (n) VALUES (%(n)s::int)"
DIVIDE = "INSERT INTO kept (n) SELECT 1 / %(by)s::int"
ALL = "SELECT * FROM kept ORDER BY n"
BROKEN = (truediv, (1, 0))


@pytest.fixture(autouse=True)
def _prepare_all(own_database):
    """Makes psycopg prepare each statement when it runs for the first time."""
    connection.ensure_connection()
    connection.connection.prepare_threshold = 0
    execute("CREATE TABLE kept (n integer)", {})
    for sql, params in ((ADD, {"n": 0}), (DIVIDE, {"by": 1}), (ALL, {}), (READ, {"factor": 3})):
        fetch_all(sql, params) if sql in {ALL, READ} else execute(sql, params)
    execute("DELETE FROM kept", {})


@pytest.fixture
def cursors(monkeypatch):
    """Collects what psycopg's cursors run."""
    ran = []
    run = psycopg.Cursor.execute

    def keep(self, query, *args, **kwargs):
        ran.append(query)
        return run(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", keep)
    return ran


@pytest.fixture
def trips(monkeypatch):
    """Counts the round trips to PostgreSQL of what is prepared, and of psycopg's own commands."""
    made = []
    wait = psycopg.Connection.wait

    def count(*args):
        made.append(1)
        return wait(*args)

    monkeypatch.setattr(psycopg.Connection, "wait", count)
    return made


def test_psycopg_is_of_the_line_whose_private_parts_we_use():
    assert version("psycopg").startswith("3.3.")
    driver = connection.connection
    smallint = 21
    assert (base._converted(ADD)[0], (smallint,)) in driver._prepared._names
    assert driver._get_tx_start_command() == b"BEGIN"


def test_it_gives_what_the_cursor_gives(cursors):
    assert fetch_all(READ, {"factor": 3}) == ROWS
    assert execute(READ, {"factor": 3}) == 2
    assert execute(ADD, {"n": 7}) == 1
    assert cursors == []
    with planned_for_values():
        assert fetch_all(READ, {"factor": 3}) == ROWS
        assert execute(ADD, {"n": 8}) == 1
    assert cursors == [READ, ADD]
    assert fetch_all(ALL, {}) == [{"n": 7}, {"n": 8}]


def test_another_thread_than_the_main_one_waits_in_c(monkeypatch):
    def use():
        connection.ensure_connection()
        connection.connection.prepare_threshold = 0
        for sql, params in ((ADD, {"n": None}), (DIVIDE, {"by": 1})):
            execute(sql, params)
        fetch_all(READ, {"factor": 3})
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Connection, "wait", None)
            found = execute(ADD, {"n": None}), fetch_all(READ, {"factor": 3})
            with pytest.raises(DataError):
                execute(DIVIDE, {"by": 0})
        connection.close()
        return found

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use).result() == (1, ROWS)


def test_a_transaction_of_two_statements_takes_two_round_trips(trips):
    with transaction.atomic():
        trips.clear()
        execute(ADD, {"n": 1})  # with BEGIN
        execute_later(ADD, {"n": 2})
        execute_later(ADD, {"n": 3})
        assert len(trips) == 1
    assert len(trips) == 2  # The two that waited went with COMMIT.
    assert connection.connection.info.transaction_status == TransactionStatus.IDLE
    assert [row["n"] for row in fetch_all(ALL, {})] == [1, 2, 3]


def test_the_next_statement_sees_what_waited():
    with transaction.atomic():
        execute(ADD, {"n": 1})
        execute_later(ADD, {"n": 2})
        assert [row["n"] for row in fetch_all(ALL, {})] == [1, 2]
        execute_later(ADD, {"n": 3})
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM kept")
            assert cursor.fetchone() == (3,)


def together(*calls):
    """Makes these calls, each a function with its arguments, in one transaction or savepoint."""
    with transaction.atomic():
        for function, arguments in calls:
            function(*arguments)


def test_what_fails_late_rolls_all_back():
    now, later = (execute, (ADD, {"n": 1})), (execute_later, (DIVIDE, {"by": 0}))
    with pytest.raises(DataError):
        together(now, later, (execute_later, (ADD, {"n": 2})))
    assert fetch_all(ALL, {}) == []
    assert not connection.in_atomic_block
    with pytest.raises(DataError):
        together(now, later, now)
    assert fetch_all(ALL, {}) == []


def test_a_rollback_keeps_what_is_prepared(cursors):
    def roll_back():
        with transaction.atomic():
            assert fetch_all(READ, {"factor": 3}) == ROWS
            transaction.set_rollback(True)

    roll_back()
    with transaction.atomic():
        roll_back()
    assert fetch_all(READ, {"factor": 3}) == ROWS
    assert READ not in cursors


def test_a_rollback_forgets_what_waits():
    with pytest.raises(ZeroDivisionError):
        together((execute, (ADD, {"n": 1})), (execute_later, (ADD, {"n": 2})), BROKEN)
    with transaction.atomic():
        execute(ADD, {"n": 3})
        with pytest.raises(DataError):
            together((execute_later, (ADD, {"n": 4})), (execute, (DIVIDE, {"by": 0})))
        with pytest.raises(ZeroDivisionError):
            together((execute, (ADD, {"n": 5})), (execute_later, (ADD, {"n": 6})), BROKEN)
        execute_later(ADD, {"n": 7})
    assert [row["n"] for row in fetch_all(ALL, {})] == [3, 7]


def test_outside_a_transaction_nothing_waits():
    execute_later(ADD, {"n": 1})
    assert fetch_one(ALL, {}) == {"n": 1}


def test_a_statement_whose_table_has_changed_works_again(cursors):
    execute(ADD, {"n": 1})
    with connection.cursor() as cursor:
        cursor.cursor.connection.pgconn.exec_(b"ALTER TABLE kept ADD m integer DEFAULT 5")
    with pytest.raises(DatabaseError, match="cached plan"):
        fetch_all(ALL, {})
    assert fetch_all(ALL, {}) == [{"n": 1, "m": 5}]
    assert fetch_all(ALL, {}) == [{"n": 1, "m": 5}]
    assert cursors == [ALL]  # psycopg prepared it again


def end_session():
    """Ends the session of this thread's connection, as an administrator would."""
    driver = connection.connection
    pid = driver.info.backend_pid
    with psycopg.connect(driver.info.dsn, password=driver.info.password, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_a_broken_connection_is_an_operational_error(in_main_thread):
    def use():
        connection.ensure_connection()
        connection.connection.prepare_threshold = 0
        for _ in range(2):
            fetch_all(READ, {"factor": 3})
        end_session()
        try:
            for _ in range(2):  # libpq tells the server's reason first, and then its own
                with pytest.raises(OperationalError):
                    fetch_all(READ, {"factor": 3})
        finally:
            connection.close()
        return fetch_all(READ, {"factor": 3}) if in_main_thread else ROWS

    if in_main_thread:
        assert use() == ROWS
    else:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(use).result() == ROWS


def test_a_session_that_ended_is_noticed():
    with transaction.atomic():
        execute(ADD, {"n": 1})
        execute_later(ADD, {"n": 2})
        end_session()
        with pytest.raises(DatabaseError):
            fetch_all(ALL, {})
        connection.close()
        transaction.set_rollback(True)
    assert fetch_all(ALL, {}) == []
