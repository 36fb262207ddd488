"""The lane of ordinary requests has a bounded pool of threads, and loses no thread."""

import asyncio
import threading
from uuid import UUID

import pytest

from pipedai.ids import current_request_id
from pipedai.server.lanes import WsgiLane
from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget
from pipedai.server.tests.asgi_exchange import Exchange, http_scope

pytestmark = pytest.mark.anyio


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [current_request_id.get().encode()]


async def test_a_request_is_answered_in_a_thread_that_knows_its_request_id():
    token = current_request_id.set("r-1")
    exchange = await Exchange(http_scope()).run(WsgiLane(hello, threads=1))
    current_request_id.reset(token)
    assert exchange.status == 200
    assert exchange.body == b"r-1"


async def test_no_more_requests_run_at_once_than_there_are_threads():
    running, most = set(), 0
    release = threading.Event()

    def waiting(environ, start_response):
        nonlocal most
        running.add(threading.get_ident())
        most = max(most, len(running))
        release.wait(60)
        running.discard(threading.get_ident())
        return hello(environ, start_response)

    lane = WsgiLane(waiting, threads=2)
    exchanges = [asyncio.ensure_future(Exchange(http_scope()).run(lane)) for _ in range(6)]
    async with asyncio.timeout(60):
        while most < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert most == 2
    release.set()
    assert [(await exchange).status for exchange in exchanges] == [200] * 6
    assert most == 2


WORKSPACE = UUID(int=1)


@pytest.mark.parametrize(
    ("stuck_ones", "goes_on", "most"),
    [
        (["192.0.2.1"], "192.0.2.2", 2),
        (["192.0.2.1", "192.0.2.3", "192.0.2.4"], WORKSPACE, 3),
        ([WORKSPACE], "192.0.2.2", 3),
    ],
    ids=["an address", "many addresses", "a workspace"],
)
async def test_a_group_leaves_a_quarter_of_the_threads_to_others(stuck_ones, goes_on, most):
    release, begun = threading.Event(), threading.Semaphore(0)

    def stuck_by_one(environ, start_response):
        if environ["REMOTE_ADDR"] != "192.0.2.99":
            begun.release()
            release.wait(60)
        return hello(environ, start_response)

    lane = WsgiLane(stuck_by_one, threads=4)

    def ask(group, address="192.0.2.1"):
        holding = Holding(MemoryBudget(), address)
        holding.join(group)
        return Exchange(http_scope() | {"client": (address, 1), HOLDING: holding}).run(lane)

    stuck = [asyncio.ensure_future(ask(stuck_ones[n % len(stuck_ones)])) for n in range(9)]
    async with asyncio.timeout(60):
        for _ in range(most):
            await asyncio.to_thread(begun.acquire)
        for _ in range(5):
            assert (await ask(goes_on, "192.0.2.99")).status == 200
    assert not begun.acquire(blocking=False)
    release.set()
    assert [(await each).status for each in stuck] == [200] * 9


def endless_enough(environ, start_response):
    """An answer in many pieces."""
    start_response("200 OK", [])
    return (b"x" for _ in range(50))


@pytest.fixture
async def stuck():
    """Returns a lane with a single thread, and a request whose client does not read its answer."""
    lane = WsgiLane(endless_enough, threads=1)
    exchange = Exchange(http_scope())
    sends, reads = asyncio.Event(), asyncio.Event()

    async def send(message):
        sends.set()
        await reads.wait()
        await exchange.send(message)

    task = asyncio.ensure_future(lane(exchange.scope, exchange.receive, send))
    await sends.wait()
    yield lane, task
    reads.set()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() or exchange.body == b"x" * 50


async def test_a_client_that_does_not_read_holds_no_thread(stuck):
    lane, _ = stuck
    async with asyncio.timeout(60):
        assert (await Exchange(http_scope()).run(lane)).body == b"x" * 50


async def test_a_thread_survives_a_client_that_leaves_in_mid_answer(stuck):
    lane, task = stuck
    task.cancel()
    async with asyncio.timeout(60):
        assert (await Exchange(http_scope()).run(lane)).body == b"x" * 50


async def test_a_thread_survives_a_send_that_fails():
    lane = WsgiLane(endless_enough, threads=1)
    exchange = Exchange(http_scope())

    async def failing(message):
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        await lane(exchange.scope, exchange.receive, failing)
    async with asyncio.timeout(60):
        assert (await Exchange(http_scope()).run(lane)).body == b"x" * 50


async def test_a_crash_reaches_the_caller():
    def crashing(environ, start_response):
        raise RuntimeError("told you")

    with pytest.raises(RuntimeError, match="told you"):
        await Exchange(http_scope()).run(WsgiLane(crashing, threads=1))
