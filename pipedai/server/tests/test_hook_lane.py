"""Hooks take half of the threads at most, from however many addresses they are called."""

import asyncio
import threading

import pytest

from pipedai.server.headers import HOOKS
from pipedai.server.hook_lane import HookLane
from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.server.wsgi_lane import WsgiLane

pytestmark = pytest.mark.anyio


async def test_a_flood_of_hooks_leaves_half_of_the_threads_to_others():
    release, begun = threading.Event(), threading.Semaphore(0)

    def stuck_hooks(environ, start_response):
        if environ["PATH_INFO"].startswith(HOOKS):
            begun.release()
            release.wait(60)
        start_response("200 OK", [])
        return [b""]

    lane = HookLane(WsgiLane(stuck_hooks, threads=4), turns=2)

    def ask(address, path):
        holding = Holding(MemoryBudget(), address)
        return Exchange(http_scope(path=path) | {HOLDING: holding}).run(lane)

    hooks = [asyncio.ensure_future(ask(f"192.0.2.{n}", f"{HOOKS}1")) for n in range(6)]
    for _ in range(2):
        assert await asyncio.to_thread(begun.acquire, timeout=60)
    async with asyncio.timeout(60):
        others = [await ask("203.0.113.9", "/api/v1/x") for _ in range(3)]
    assert [other.status for other in others] == [200] * 3
    assert not begun.acquire(blocking=False)
    release.set()
    assert [(await hook).status for hook in hooks] == [200] * 6
