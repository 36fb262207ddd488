"""Hooks take half of the threads at most, from however many addresses they are called, and workspaces take turns."""

import asyncio
import threading

import pytest

from pipedai.ids import new_id
from pipedai.server import memory_budget
from pipedai.server.lanes import HookLane, WsgiLane
from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget, group_of, note_sender
from pipedai.server.request_scope import HOOKS
from pipedai.server.tests.asgi_exchange import Exchange, http_scope

pytestmark = pytest.mark.anyio


def ask(lane, address, path):
    holding = Holding(MemoryBudget(), address, path)
    return Exchange(http_scope(path=path) | {HOLDING: holding}).run(lane)


async def test_a_flood_of_hooks_leaves_half_of_the_threads_to_others():
    release, begun = threading.Event(), threading.Semaphore(0)

    def stuck_hooks(environ, start_response):
        if environ["PATH_INFO"].startswith(HOOKS):
            begun.release()
            release.wait(60)
        start_response("200 OK", [])
        return [b""]

    lane = HookLane(WsgiLane(stuck_hooks, threads=4), turns=2)

    hooks = [asyncio.ensure_future(ask(lane, f"192.0.2.{n}", f"{HOOKS}1")) for n in range(6)]
    for _ in range(2):
        assert await asyncio.to_thread(begun.acquire, timeout=60)
    async with asyncio.timeout(60):
        others = [await ask(lane, "203.0.113.9", "/api/v1/x") for _ in range(3)]
    assert [other.status for other in others] == [200] * 3
    assert not begun.acquire(blocking=False)
    release.set()
    assert [(await hook).status for hook in hooks] == [200] * 6


async def test_two_tenants_behind_one_address_take_turns():
    address, flooding, other = "192.0.2.77", new_id(), new_id()
    for source_id in (flooding, other):
        note_sender(source_id, address, new_id())
    release, served = threading.Event(), []

    def stuck_hooks(environ, start_response):
        served.append(environ["PATH_INFO"])
        release.wait(60)
        start_response("200 OK", [])
        return [b""]

    lane = HookLane(WsgiLane(stuck_hooks, threads=8), turns=4)
    paths = [f"{HOOKS}{source_id}" for source_id in (*[flooding] * 20, other)]
    asked = [asyncio.ensure_future(ask(lane, address, path)) for path in paths]
    # The flood has three of the four turns, however long each takes, and the other tenant is served at once.
    async with asyncio.timeout(60):
        while len(served) < 4:
            await asyncio.sleep(0.01)
    assert paths[-1] in served
    release.set()
    assert [(await each).status for each in asked] == [200] * 21


def test_only_who_has_signed_from_an_address_counts_apart_there(monkeypatch):
    source_id, workspace_id = new_id(), new_id()
    path = f"{HOOKS}{source_id}"
    assert group_of(path, "192.0.2.1") == "192.0.2.1"
    note_sender(source_id, "192.0.2.1", workspace_id)
    assert group_of(path, "192.0.2.1") == workspace_id
    assert group_of(path, "192.0.2.2") == "192.0.2.2"
    assert group_of(f"/api/v1/sources/{source_id}", "192.0.2.1") == "192.0.2.1"
    monkeypatch.setattr(memory_budget, "_MOST_SENDERS", len(memory_budget._workspaces))
    note_sender(new_id(), "192.0.2.1", workspace_id)
    note_sender(source_id, "192.0.2.1", workspace_id)
    assert len(memory_budget._workspaces) == memory_budget._MOST_SENDERS
