"""Streams of runs share what is read for them, and none waits for another's reader."""

import asyncio
from uuid import UUID

import pytest

from pipedai.server import event_stream
from pipedai.server.event_stream import EventStreams, FanOut
from pipedai.server.lanes import STREAMS
from pipedai.server.outer import LOG
from pipedai.server.request_scope import ClientGone
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.server.ticket import STREAM, Piece
from pipedai.wakeups import CHANGED, EVENT

pytestmark = pytest.mark.anyio

RUN, OTHER = (UUID(f"0192b7a0-0000-7000-8000-00000000000{n}") for n in "ab")
USER = UUID("0192b7a0-0000-7000-8000-00000000000c")
OF_RUNS = next(kind for kind in STREAMS if kind.opening == "run events")


class Store:
    """Stands in for the stored events and for the endpoint. Each event is the text `<number>;`."""

    def __init__(self):
        self.stored = {RUN: 0, OTHER: 0}
        self.readings, self.asked, self.status = [], 0, 200
        self.fails = False
        self.most = 100

    def read(self, streams):
        self.readings.append(list(streams))
        if self.fails:
            raise OSError
        return {(run, after): self._piece(run, after) for run, after in streams}

    def _piece(self, run, after):
        last = min(self.stored[run], after + self.most)
        text = "".join(f"{number};" for number in range(after + 1, last + 1))
        return Piece(text.encode(), last, more=last < self.stored[run])

    async def __call__(self, scope, receive, send):
        self.asked += 1
        ticket = scope[STREAM]
        ticket.hears_of, ticket.read_together = frozenset({USER}), self.read
        run = UUID(scope["path"].split("/")[4])
        text, ticket.sent, _ = self._piece(run, ticket.sent or 0)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": text})


class Reader(Exchange):
    """Reads a stream, unless it is `deaf`."""

    deaf = False
    task: asyncio.Future[None]

    async def send(self, message):
        while self.deaf:
            await asyncio.sleep(0.001)
        await super().send(message)

    async def until_read(self, text):
        async with asyncio.timeout(30):
            while not self.sent or text not in self.body:
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(event_stream, "GATHER_SECONDS", 0.02)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def start(store, listener):
    async def in_thread(function):
        await asyncio.sleep(0)
        return function()

    lane = EventStreams(store, listener, turns=4, fan_out=FanOut(in_thread))
    tasks = []

    async def begin(run=RUN):
        """Starts a stream, waits until it has asked for what it might have missed, and returns its reader."""
        asked = store.asked
        path = f"/api/v1/runs/{run}/events/stream"
        reader = Reader(http_scope("GET", path) | {LOG: {}})
        reader.task = asyncio.ensure_future(
            lane.serve(OF_RUNS, run, reader.scope, reader.receive, reader.send)
        )
        tasks.append(reader.task)
        await reader.until_read(b": still here")
        assert store.asked == asked + 2
        return reader

    yield begin
    for task in tasks:
        task.cancel()


def tell(store, listener, run=RUN, count=1):
    store.stored[run] += count
    listener.deliver(f"{EVENT} {run}")


async def test_readers_of_one_run_and_of_others_share_one_reading(store, listener, start):
    first, second, other = await start(), await start(), await start(OTHER)
    asked = store.asked
    tell(store, listener)
    tell(store, listener, OTHER, 2)
    for reader, text in ((first, b"1;"), (second, b"1;"), (other, b"1;2;")):
        await reader.until_read(text)
    assert store.readings == [[(RUN, 0), (OTHER, 0)]]
    assert store.asked == asked


async def test_who_joins_in_the_middle_gets_each_event_once(store, listener, start):
    first = await start()
    tell(store, listener, count=3)
    await first.until_read(b"3;")
    late = await start()
    tell(store, listener)
    for reader in (first, late):
        await reader.until_read(b"4;")
        assert reader.body.count(b"1;2;3;") == reader.body.count(b"4;") == 1


async def test_a_backlog_comes_piece_by_piece(store, listener, start):
    reader = await start()
    store.most = 2
    tell(store, listener, count=5)
    await reader.until_read(b"1;2;3;4;5;")


async def test_the_endpoint_decides_as_soon_as_more_than_events_is_new(store, listener, start):
    reader = await start()
    store.status = 404
    tell(store, listener)
    listener.deliver(f"{CHANGED} {USER}")
    async with asyncio.timeout(30):
        await reader.task
    assert not store.readings
    assert b"1;" not in reader.body


async def test_the_endpoint_is_asked_in_time_though_events_come_all_the_time(
    store, listener, start, monkeypatch
):
    monkeypatch.setattr(event_stream, "RECHECK_SECONDS", 0.4)
    reader = await start()
    store.status = 401
    async with asyncio.timeout(30):
        while not reader.task.done():
            tell(store, listener)
            await asyncio.sleep(0.02)
    assert store.readings


async def test_events_that_nobody_told_of_come_when_the_stream_looks_again(
    store, start, monkeypatch
):
    """As when the process that stored them died before it told the others."""
    reader = await start()
    store.stored[RUN] += 2
    await asyncio.sleep(0.1)
    assert b"1;" not in reader.body
    monkeypatch.setattr(event_stream, "RECHECK_SECONDS", 0.2)
    late = await start()
    assert late.body.count(b"1;2;") == 1
    store.stored[RUN] += 1
    await late.until_read(b"3;")
    assert not store.readings


async def test_the_endpoint_is_asked_if_nothing_can_be_read(store, listener, start):
    reader = await start()
    asked, store.fails = store.asked, True
    tell(store, listener)
    await reader.until_read(b"1;")
    assert store.asked == asked + 1


async def test_a_slow_reader_is_let_go_and_holds_up_no_other(store, listener, start, monkeypatch):
    slow, quick = await start(), await start()
    monkeypatch.setattr(event_stream, "LONGEST_SEND_SECONDS", 0.3)
    slow.deaf = True
    for number in range(1, 4):
        tell(store, listener)
        await quick.until_read(f"{number};".encode())
    with pytest.raises(ClientGone):
        await slow.task
    assert not quick.task.done()


async def test_who_leaves_takes_nothing_from_the_others(store, listener, start):
    leaving, staying = await start(), await start()
    tell(store, listener)
    await asyncio.sleep(0.005)
    leaving.task.cancel()
    await staying.until_read(b"1;")
