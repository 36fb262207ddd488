"""Event streams: they ask the endpoint again when there may be news, and depend on no reader."""

import asyncio
from uuid import UUID

import pytest

from pipedai.server import event_stream
from pipedai.server.event_stream import EventStreams
from pipedai.server.lanes import STREAMS
from pipedai.server.outer import LOG
from pipedai.server.request_scope import ClientGone
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.server.ticket import STREAM
from pipedai.wakeups import CHANGED, EVENT

pytestmark = pytest.mark.anyio

WORKER = UUID("0192b7a0-0000-7000-8000-00000000000a")
KEY = UUID("0192b7a0-0000-7000-8000-00000000000b")
SOON = 0.05


class Endpoint:
    """Stands in for the stream endpoint, and returns the events in `news`, one at a time."""

    def __init__(self):
        self.status, self.asked = 200, 0
        self.news: list[bytes] = []

    async def __call__(self, scope, receive, send):
        self.asked += 1
        ticket = scope[STREAM]
        ticket.hears_of = frozenset({KEY})
        told = self.news.pop(0) if self.news else b""
        ticket.more = bool(self.news)
        headers = [(b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": told})


class Reader(Exchange):
    """Reads the stream, unless it is `deaf`."""

    deaf = False

    async def send(self, message):
        if self.deaf and message["type"] == "http.response.body":
            await asyncio.Event().wait()
        await super().send(message)

    async def until_read(self, text):
        async with asyncio.timeout(30):
            while not self.sent or text not in self.body:
                await asyncio.sleep(0.001)


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def lane(endpoint, listener):
    return EventStreams(endpoint, listener, turns=1)


def start(lane):
    """Starts a stream, and returns its reader and its task."""
    reader = Reader(http_scope() | {LOG: {}})
    task = asyncio.ensure_future(
        lane.serve(STREAMS[0], WORKER, reader.scope, reader.receive, reader.send)
    )
    return reader, task


@pytest.mark.parametrize("said", [f"{EVENT} {WORKER}", f"{CHANGED} {WORKER}", f"{CHANGED} {KEY}"])
async def test_it_asks_again_when_something_is_said_of_its_worker_or_its_key(
    lane, listener, endpoint, said
):
    reader, task = start(lane)
    await reader.until_read(b": worker events")
    endpoint.news = [b"news"]
    listener.deliver(said)
    await reader.until_read(b"news")
    endpoint.status = 401
    listener.deliver(said)
    async with asyncio.timeout(30):
        await task
    assert reader.sent[-1] == {"type": "http.response.body", "body": b""}
    assert "content-length" not in reader.headers


async def test_a_credential_that_died_unheard_is_noticed(lane, endpoint, monkeypatch):
    monkeypatch.setattr(event_stream, "RECHECK_SECONDS", SOON)
    reader, task = start(lane)
    await reader.until_read(b": still here")
    endpoint.status = 401
    async with asyncio.timeout(30):
        await task


def test_it_is_looked_at_within_15_seconds_though_the_reader_is_slow():
    longest = max(event_stream.RECHECK_SECONDS, event_stream.LONGEST_SEND_SECONDS)
    assert longest + max(kind.pause_seconds for kind in STREAMS) < 15


async def test_a_reader_that_takes_nothing_is_left_and_nothing_is_fetched_for_it_meanwhile(
    lane, listener, endpoint, monkeypatch
):
    monkeypatch.setattr(Reader, "deaf", True)
    endpoint.news = [b"news"] * 100
    _, task = start(lane)
    while not endpoint.asked:
        await asyncio.sleep(0.001)
    for _ in range(100):
        listener.deliver(f"{EVENT} {WORKER}")
        await asyncio.sleep(0)
    assert endpoint.asked == 1
    assert not task.done()
    task.cancel()
    monkeypatch.setattr(event_stream, "LONGEST_SEND_SECONDS", SOON)
    _, other = start(lane)
    with pytest.raises(ClientGone):
        await other
    assert not listener._ears


async def test_nothing_is_sent_long_after_the_credential_was_last_looked_at(lane, monkeypatch):
    monkeypatch.setattr(Reader, "deaf", True)
    monkeypatch.setattr(event_stream, "LONGEST_SEND_SECONDS", 3600.0)
    monkeypatch.setattr(event_stream, "LONGEST_UNCHECKED_SECONDS", SOON)
    _, task = start(lane)
    with pytest.raises(ClientGone):
        async with asyncio.timeout(30):
            await task


async def test_one_that_takes_nothing_holds_up_no_other(lane, endpoint, monkeypatch):
    deaf, stuck = start(lane)
    deaf.deaf = True
    while not deaf.sent:
        await asyncio.sleep(0.001)
    endpoint.news = [b"one", b"two", b"three"]
    reader, task = start(lane)
    await reader.until_read(b"onetwothree")
    for each in (stuck, task):
        each.cancel()


async def test_who_leaves_is_forgotten(lane, listener):
    reader, task = start(lane)
    await reader.until_read(b": worker events")
    reader.gone.set()
    with pytest.raises(ClientGone):
        await task
    assert not listener._ears


async def test_all_end_when_the_server_stops(lane, listener):
    streams = [start(lane) for _ in range(3)]
    for reader, _ in streams:
        await reader.until_read(b": worker events")
    assert (listener.streaming, listener.waiting) == (3, 0)
    lane.stop()
    async with asyncio.timeout(30):
        await asyncio.gather(*(task for _, task in streams))
    late, task = start(lane)
    async with asyncio.timeout(30):
        await task
    assert late.status == 200
