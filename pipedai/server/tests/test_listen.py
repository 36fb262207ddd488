"""The process's LISTEN connection, on a real database."""

import asyncio
import socket
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import pytest
from django.db import connection, transaction

from pipedai.server import listen
from pipedai.server.listen import Ear, Listener, connect
from pipedai.server.request_scope import ClientGone
from pipedai.wakeups import announce_poll, wake_workers

WORKER = UUID("0192b7a0-0000-7000-8000-00000000000a")
pytestmark = [pytest.mark.anyio, pytest.mark.django_db]


@asynccontextmanager
async def listening(listener):
    task = asyncio.ensure_future(listener.run())
    try:
        await until(lambda: listener.healthy)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


def in_database(function):
    """Calls the function in another thread, whose connection is outside the test's transaction."""

    def call():
        try:
            return function()
        finally:
            connection.close()

    # A thread of this test's loop has no connection that an earlier test has left, and that has been ended since.
    return asyncio.to_thread(call)


def end_listeners():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'pipedai-listen' AND datname = current_database()"
        )
        return len(cursor.fetchall())


def wake():
    with transaction.atomic():
        wake_workers([WORKER])


async def test_a_connection_that_is_given_up_is_replaced_and_disturbs_no_other_socket():
    connects = []

    async def counted():
        connects.append(True)
        return await connect()

    listener = Listener(counted)
    async with listening(listener):
        await listener.reconnect()
        # The system gives a new socket the lowest free number, which would be that of a connection just closed.
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            await until(lambda: len(connects) == 2 and listener.healthy)
            theirs.send(b"x")
            async with asyncio.timeout(20):
                assert await reader.read(1) == b"x"
        writer.close()


async def test_an_ear_waits_until_it_is_woken_or_the_time_is_over_or_its_client_leaves():
    ear, gone = Ear(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    ear.wake()
    await ear.wait(receive, 0)
    await ear.wait(receive, 0.01)
    for _ in range(2):
        waiting = asyncio.ensure_future(ear.wait(receive, 60))
        loop.call_later(0.01, ear.wake)
        loop.call_later(0.01, ear.wake)
        await waiting
    waiting = asyncio.ensure_future(ear.wait(receive, 60))
    loop.call_later(0.01, gone.set)
    with pytest.raises(ClientGone):
        await waiting
    with pytest.raises(ClientGone):
        await ear.wait(receive, 0)


async def test_what_services_send_is_heard():
    listener = Listener(connect)
    async with listening(listener):
        ear = Ear()
        listener.subscribe(ear, WORKER)
        await in_database(wake)
        await until(lambda: ear.changed)
        assert ear.newest_poll == 0
        await in_database(lambda: announce_poll(WORKER, 7))
        await until(lambda: ear.newest_poll == 7)
    assert not listener.healthy


async def test_what_another_release_may_send_is_ignored():
    listener, ear = Listener(connect), Ear()
    listener.subscribe(ear, WORKER)
    for text in ("", "things", f"things {WORKER} run 1", f"polling {WORKER} now", f"new {WORKER}"):
        listener.deliver(text)
    assert not ear.changed


async def test_a_lost_connection_comes_back_and_wakes_everyone(logged, monkeypatch):
    monkeypatch.setattr(listen, "FIRST_PAUSE_SECONDS", 0.01)
    listener = Listener(connect)
    async with listening(listener):
        ear = Ear()
        listener.subscribe(ear, WORKER)
        for _ in range(2):
            ear.changed = False
            assert await in_database(end_listeners) == 1
            # Any waiter may have missed a notification in between, so all are woken.
            await until(lambda: ear.changed)
            assert listener.healthy
        ear.changed = False
        await in_database(wake)
        await until(lambda: ear.changed)
    events = logged.events("pipedai.server.listen")
    assert [line["level"] for line in events] == ["warning", "info"] * 2


async def test_a_database_that_stays_away_is_reported_once(logged, monkeypatch):
    monkeypatch.setattr(listen, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(listen, "LONGEST_PAUSE_SECONDS", 0.002)
    attempts = 0

    async def away():
        nonlocal attempts
        attempts += 1
        if attempts < 10:
            raise psycopg.OperationalError("connection refused")
        return await connect()

    listener = Listener(away)
    async with listening(listener):
        pass
    lost, found = logged.events("pipedai.server.listen")
    assert lost["level"] == "warning"
    assert lost["reason"] == "connection refused"
    assert found["level"] == "info"


async def test_the_pause_between_attempts_grows_to_its_bound(monkeypatch):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 10:
            raise asyncio.CancelledError

    async def away():
        raise psycopg.OperationalError

    monkeypatch.setattr("asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await Listener(away).run()
    assert pauses[0] <= listen.FIRST_PAUSE_SECONDS
    assert listen.LONGEST_PAUSE_SECONDS / 2 <= pauses[-1] <= listen.LONGEST_PAUSE_SECONDS


async def test_the_listen_url_names_another_server(settings):
    settings.DATABASE_LISTEN_URL = "postgres://nobody@127.0.0.1:1/nowhere"
    with pytest.raises(psycopg.OperationalError, match="port 1"):
        await connect()
