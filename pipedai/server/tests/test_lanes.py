"""Which lane a request takes, and what runs between start and stop."""

import asyncio
from uuid import UUID

import pytest

from pipedai.server.event_stream import EventStreams
from pipedai.server.lanes import STOP, Lanes, waiting_worker
from pipedai.server.listen import Listener
from pipedai.server.long_poll import LongPoll
from pipedai.server.password_lane import PasswordLane
from pipedai.server.tests.asgi_exchange import http_scope
from pipedai.server.turns import Turns

WORKER = "0192b7a0-0000-7000-8000-00000000000a"
POLL = f"/api/v1/workers/{WORKER}/poll"


@pytest.mark.parametrize("query", ["wait=30", "wait=0.5", "a=b&wait=5", "wait=0&wait=5", "wait=x"])
def test_a_poll_that_waits_takes_the_long_poll_lane(query):
    assert waiting_worker(http_scope("GET", POLL, query=query)) == UUID(WORKER)


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", POLL, ""),
        ("GET", POLL, "wait=0"),
        ("GET", POLL, "wait="),
        ("GET", POLL, "wait=5&wait=0"),
        ("GET", POLL, "waits=5"),
        ("POST", POLL, "wait=5"),
        ("HEAD", POLL, "wait=5"),
        ("GET", f"{POLL}/", "wait=5"),
        ("GET", POLL.upper(), "wait=5"),
        ("GET", f"/x{POLL}", "wait=5"),
        ("GET", "/api/v1/workers/x/poll", "wait=5"),
        ("GET", f"/api/v1/workers/{WORKER}", "wait=5"),
    ],
)
def test_everything_else_goes_to_the_threads(method, path, query):
    assert waiting_worker(http_scope(method, path, query=query)) is None


@pytest.mark.anyio
async def test_the_listener_runs_from_start_to_stop_and_the_server_is_told_how_to_stop_it():
    listening, stopped = asyncio.Event(), asyncio.Event()

    class Listening(Listener):
        async def run(self):
            listening.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    async def no_endpoint(scope, receive, send):
        raise AssertionError

    async def no_database():
        raise AssertionError

    listener = Listening(no_database)
    long_poll = LongPoll(no_endpoint, listener, turns=1)
    events: asyncio.Queue[str] = asyncio.Queue()
    said: list[str] = []

    async def receive():
        return {"type": await events.get()}

    async def send(message):
        said.append(message["type"])

    state: dict[str, object] = {}
    scope = {"type": "lifespan", "state": state}
    streams = EventStreams(no_endpoint, listener, turns=1)
    passwords = PasswordLane(no_endpoint, Turns(1))
    lanes = Lanes(no_endpoint, long_poll, streams, listener, passwords)
    life = asyncio.ensure_future(lanes(scope, receive, send))
    events.put_nowait("lifespan.startup")
    await listening.wait()
    assert said == ["lifespan.startup.complete"]
    assert callable(state[STOP])
    events.put_nowait("lifespan.shutdown")
    await life
    assert stopped.is_set()
    assert said[-1] == "lifespan.shutdown.complete"
