"""Each request takes the right lane, and the listener runs from the server's start to its stop."""

import asyncio
import threading
from uuid import UUID

import pytest

from pipedai.clocks import EDITION
from pipedai.server.event_stream import EventStreams
from pipedai.server.lanes import LIVE, STOP, Lanes, PermitLane, WsgiLane, waiting_worker
from pipedai.server.listen import Listener
from pipedai.server.long_poll import AskingLane, LongPoll
from pipedai.server.outer import LOG
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.server.ticket import POLL as ticket_key  # noqa: N811 - a path is called POLL here
from pipedai.server.turns import Turns
from pipedai.version import VERSION
from testing.world.cases import cases

WORKER = "0192b7a0-0000-7000-8000-00000000000a"
POLL = f"/api/v1/workers/{WORKER}/poll"
CLAIM_NEXT = f"/api/v1/workers/{WORKER}/claim-next"


@cases("query", ["wait=30", "wait=0.5", "a=b&wait=5", "wait=0&wait=5", "wait=x"])
def test_a_poll_that_waits_takes_the_long_poll_lane(query):
    assert waiting_worker(http_scope("GET", POLL, query=query)) == UUID(WORKER)


def test_a_claim_of_the_next_run_takes_the_long_poll_lane():
    assert waiting_worker(http_scope("POST", CLAIM_NEXT)) == UUID(WORKER)


@cases(
    ("method", "path", "query"),
    [
        ("GET", CLAIM_NEXT, "wait=5"),
        ("PUT", CLAIM_NEXT, "wait=5"),
        ("POST", f"{CLAIM_NEXT}/", ""),
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


@pytest.fixture
def stuck(listener):
    """Makes lanes whose threads are all busy until the test ends."""
    begun, ended = threading.Semaphore(0), threading.Event()

    def wsgi(environ, start_response):
        begun.release()
        assert ended.wait(60)
        start_response("200 OK", [])
        return [b"from a thread"]

    threads = WsgiLane(wsgi, threads=2)
    lanes = Lanes(
        threads,
        LongPoll(threads, listener, turns=1),
        EventStreams(threads, listener, turns=1),
        PermitLane(threads, Turns(1)),
        PermitLane(threads, Turns(1)),
        AskingLane(threads, listener, turns=1),
        (),
    )
    yield lanes, begun
    ended.set()


def ask(lanes, method="GET", path=LIVE, **more):
    return Exchange(http_scope(method, path, **more) | {LOG: {}}).run(lanes)


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_whether_it_lives_is_said_though_all_threads_are_stuck(stuck, method):
    lanes, begun = stuck
    busy = [asyncio.ensure_future(ask(lanes, path="/api/v1/x")) for _ in range(5)]
    for _ in range(2):
        await asyncio.to_thread(begun.acquire)
    async with asyncio.timeout(60):
        exchange = await ask(lanes, method)
    assert (exchange.status, exchange.json) == (
        200,
        {"status": "ok", "version": VERSION, "tzdata": EDITION},
    )
    assert exchange.scope[LOG] == {"route": "api/v1/health/live"}
    assert not any(each.done() for each in busy)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", LIVE, {}),
        ("OPTIONS", LIVE, {}),
        ("GET", f"{LIVE}/", {}),
        ("GET", "/api/v1/health", {}),
        ("GET", LIVE, {"origin": "https://app.example.com"}),
    ],
)
async def test_nothing_else_is_said_without_a_thread(stuck, method, path, headers):
    lanes, begun = stuck
    asked = asyncio.ensure_future(ask(lanes, method, path, headers={"host": "h"} | headers))
    await asyncio.to_thread(begun.acquire)
    assert not asked.done()
    asked.cancel()


@pytest.mark.anyio
async def test_claims_of_the_next_run_that_wait_hold_no_thread(listener):
    asked = threading.Semaphore(0)

    def wsgi(environ, start_response):
        ticket = environ["asgi.scope"].get(ticket_key)
        if ticket is not None:
            ticket.wait_seconds, ticket.empty = 30.0, True
            asked.release()
        start_response("200 OK", [])
        return [b"from the thread"]

    threads = WsgiLane(wsgi, threads=1)
    lanes = Lanes(
        threads,
        long_poll := LongPoll(threads, listener, turns=1),
        EventStreams(threads, listener, turns=1),
        PermitLane(threads, Turns(1)),
        PermitLane(threads, Turns(1)),
        AskingLane(threads, listener, turns=1),
        (),
    )
    scopes = [http_scope("POST", CLAIM_NEXT) | {LOG: {}} for _ in range(3)]
    waiting = [
        asyncio.ensure_future(Exchange(scope, [b'{"claimId": "a", "wait": 30}']).run(lanes))
        for scope in scopes
    ]
    async with asyncio.timeout(60):
        for _ in waiting:
            await asyncio.to_thread(asked.acquire)
        other = await ask(lanes, "POST", CLAIM_NEXT)
        assert (other.status, threads.running) == (200, 0)
        assert not any(each.done() for each in waiting)
        long_poll.stop()
        assert {(await each).status for each in waiting} == {200}


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
    passwords = PermitLane(no_endpoint, Turns(1))
    asking = AskingLane(no_endpoint, listener, turns=1)
    lanes = Lanes(no_endpoint, long_poll, streams, passwords, passwords, asking, (listener.run,))
    life = asyncio.ensure_future(lanes(scope, receive, send))
    events.put_nowait("lifespan.startup")
    await listening.wait()
    assert said == ["lifespan.startup.complete"]
    assert callable(state[STOP])
    events.put_nowait("lifespan.shutdown")
    await life
    assert stopped.is_set()
    assert said[-1] == "lifespan.shutdown.complete"
