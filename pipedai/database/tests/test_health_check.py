"""The health check of a kept connection asks the server only if something happened to the connection."""

import select

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from pipedai.sql import fetch_one

pytestmark = pytest.mark.usefixtures("own_database")


def session() -> int:
    row = fetch_one("SELECT pg_backend_pid() AS pid", {})
    assert row is not None
    return int(row["pid"])


def wait_for_news(seconds: float = 10) -> None:
    """Waits until the server's last message has arrived at the connection's socket."""
    poll = select.poll()
    poll.register(connection.connection.fileno(), select.POLLIN)
    assert poll.poll(seconds * 1000)


def test_a_live_connection_is_usable_and_the_server_is_not_asked():
    session()
    before = connection.connection.pgconn
    with CaptureQueriesContext(connection) as asked:
        assert connection.is_usable()
    assert list(asked) == []
    assert connection.connection.pgconn is before


def test_a_session_that_the_server_ended_is_replaced():
    ended = session()
    with connection._nodb_cursor() as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", [ended])
    wait_for_news()
    assert not connection.is_usable()
    connection.close_if_unusable_or_obsolete()
    assert session() != ended


def test_a_connection_that_only_got_a_notification_is_usable():
    session()
    connection.connection.execute("LISTEN news")
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("NOTIFY news")
    wait_for_news()
    assert connection.is_usable()


def test_without_a_connection_there_is_none_to_use():
    connection.close()
    assert not connection.is_usable()
