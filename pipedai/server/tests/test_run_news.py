"""A process tells its own streams of new events directly, and those of others by few notifications."""

import asyncio
from functools import partial
from uuid import UUID

import pytest

from pipedai import wakeups
from pipedai.server import listen
from pipedai.server.listen import EventsEar, Listener, RunNews
from pipedai.wakeups import announce_runs_with_events

pytestmark = pytest.mark.anyio

RUNS = [UUID(f"0192b7a0-0000-7000-8000-0000000000{n:02x}") for n in range(150)]


@pytest.fixture
def payloads(monkeypatch):
    """Returns what was sent to the database, and makes the pauses short."""
    payloads: list[str] = []
    monkeypatch.setattr(wakeups, "_notify", payloads.append)
    monkeypatch.setattr(listen, "GATHER_SECONDS", 0.02)
    return payloads


async def in_thread(function):
    await asyncio.get_running_loop().run_in_executor(None, function)


@pytest.fixture
async def news(listener):
    news = RunNews(listener, in_thread)
    task = asyncio.ensure_future(news.run())
    await asyncio.sleep(0)
    yield news
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(true):
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.002)


def ear_of(listener, run):
    ear = EventsEar()
    listener.subscribe(ear, run)
    return ear


async def test_many_calls_are_one_notification_and_wake_the_streams_here(payloads, listener, news):
    assert wakeups._gather == news.add
    ears = [ear_of(listener, run) for run in RUNS[:3]]
    # Nothing is told between these calls, since they are made in the thread of the event loop.
    for _ in range(5):
        for run in RUNS[:2]:
            news.add(run)
    assert not any(ear.has_events for ear in ears)
    await until(lambda: payloads)
    assert payloads == [[f"runs {listener.name} {RUNS[0]} {RUNS[1]}"]]
    assert [ear.has_events for ear in ears] == [True, True, False]
    await in_thread(partial(news.add, RUNS[2]))
    await until(lambda: len(payloads) == 2)
    assert ears[2].has_events


async def test_others_hear_it_and_the_process_itself_does_not_hear_it_twice(payloads, listener):
    other = Listener(listener._connect)
    here, there = ear_of(listener, RUNS[1]), ear_of(other, RUNS[1])
    announce_runs_with_events(RUNS[:2], told_by=listener.name)
    for each in (listener, other):
        each.deliver(payloads[0][0])
    assert (here.has_events, there.has_events) == (False, True)


async def test_a_notification_is_never_too_long(payloads):
    announce_runs_with_events(RUNS, told_by="0123abcd")
    (sent,) = payloads
    assert sum(payload.count("-8000-") for payload in sent) == len(RUNS)
    assert max(map(len, sent)) < 8000


async def test_what_is_left_is_told_when_the_process_stops(payloads, listener):
    news = RunNews(listener, in_thread)
    task = asyncio.ensure_future(news.run())
    await asyncio.sleep(0)
    assert news.add(RUNS[0])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert payloads == [[f"runs {listener.name} {RUNS[0]}"]]
    assert not news.add(RUNS[1])
    assert wakeups._gather is None


async def test_a_failure_is_logged_and_the_next_runs_are_told(payloads, listener, logged):
    fails = [True]

    async def in_failing_thread(function):
        if fails.pop():
            fails.append(False)
            raise OSError
        fails.append(False)
        function()

    news = RunNews(listener, in_failing_thread)
    task = asyncio.ensure_future(news.run())
    await asyncio.sleep(0)
    news.add(RUNS[0])
    await until(lambda: fails == [False])
    news.add(RUNS[1])
    await until(lambda: payloads)
    assert payloads == [[f"runs {listener.name} {RUNS[1]}"]]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
