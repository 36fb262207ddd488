"""The lane of passwords asks the endpoint, waits for a turn without a thread, and asks again."""

import asyncio

import pytest

from pipedai.server.lanes import PermitLane, may_hash
from pipedai.server.request_scope import ClientGone
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.server.ticket import PASSWORD, is_asked_again
from pipedai.server.turns import Turns
from testing.world.cases import cases

pytestmark = pytest.mark.anyio

HERE, THERE = "203.0.113.7", "198.51.100.9"


class Endpoint:
    """Stands in for an endpoint that hashes. It answers 503 until it may hash, and then 200."""

    def __init__(self, *, hashes=True):
        self.hashes = hashes
        self.asked = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.hashing = 0
        self.fails = False

    async def __call__(self, scope, receive, send):
        assert (await receive())["body"] == b"the body"
        ticket = PASSWORD.get()
        assert ticket is not None
        self.asked.append(is_asked_again())
        ticket.wanted = self.hashes
        status = 503 if self.hashes else 400
        if ticket.granted:
            self.hashing += 1
            await self.may_end.wait()
            self.hashing -= 1
            status = 200
            if self.fails:
                raise RuntimeError("told you")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": str(status).encode()})


def exchange(address=HERE):
    return Exchange(http_scope("POST") | {"client": (address, 1)}, [b"the body"])


def start(lane, address=HERE):
    """Starts a request, and returns its exchange and its task."""
    request = exchange(address)
    return request, asyncio.ensure_future(lane.serve(request.scope, request.receive, request.send))


async def true(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


@cases(
    ("method", "path", "taken"),
    [
        ("POST", "/api/v1/auth/login", True),
        ("POST", "/api/v1/auth/register", True),
        ("POST", "/api/v1/auth/change-password", True),
        ("POST", "/console/sign-in", True),
        ("POST", "/admin/login/", True),
        ("POST", "/admin/account/", True),
        ("GET", "/api/v1/auth/login", False),
        ("GET", "/console/sign-in", False),
        ("POST", "/api/v1/auth/logout", False),
        ("POST", "/api/v1/auth/login/", False),
    ],
)
def test_who_may_hash_takes_the_lane(method, path, taken):
    assert may_hash(http_scope(method, path)) is taken


async def test_the_endpoint_is_asked_again_when_it_may_hash():
    endpoint, turns = Endpoint(), Turns(1)
    request = exchange()
    await PermitLane(endpoint, turns).serve(request.scope, request.receive, request.send)
    assert (request.status, request.body) == (200, b"200")
    assert endpoint.asked == [False, True]
    assert turns.free == 1
    assert PASSWORD.get() is None


async def test_what_has_nothing_to_hash_is_answered_at_once_though_no_turn_is_free():
    endpoint, turns = Endpoint(hashes=False), Turns(1)
    turns.ask(THERE, 1, wake=lambda _: None)
    request = exchange()
    await PermitLane(endpoint, turns).serve(request.scope, request.receive, request.send)
    assert (request.status, endpoint.asked) == (400, [False])


async def test_beyond_its_patience_the_first_answer_is_given_and_nothing_else_is_asked():
    endpoint, turns = Endpoint(), Turns(1)
    held = turns.ask(THERE, 1, wake=lambda _: None)
    request = exchange()
    lane = PermitLane(endpoint, turns, patience=0.05)
    await lane.serve(request.scope, request.receive, request.send)
    assert (request.status, endpoint.asked) == (503, [False])
    assert turns.waiting == 0
    turns.leave(held)
    assert turns.free == 1


async def test_who_finds_the_queue_full_is_answered_at_once():
    endpoint, turns = Endpoint(), Turns(1, most_of_a_group=0)
    held = turns.ask(THERE, 1, wake=lambda _: None)
    request = exchange()
    await PermitLane(endpoint, turns, patience=600).serve(
        request.scope, request.receive, request.send
    )
    assert (request.status, endpoint.asked) == (503, [False])
    turns.leave(held)
    assert turns.free == 1


async def test_whose_place_in_a_full_queue_is_given_away_is_answered_at_once():
    endpoint, turns = Endpoint(), Turns(1, most_waiting=2)
    turns.ask(THERE, 1, wake=lambda _: None)
    lane = PermitLane(endpoint, turns, patience=600)
    first, second = start(lane), start(lane)
    await true(lambda: turns.waiting == 2)
    turns.ask("192.0.2.1", 1, wake=lambda _: None)
    await second[1]
    assert (second[0].status, first[1].done()) == (503, False)
    first[0].gone.set()
    with pytest.raises(ClientGone):
        await first[1]


async def test_turns_go_round_between_addresses_and_an_ipv6_network_is_one():
    endpoint, turns = Endpoint(), Turns(1)
    lane = PermitLane(endpoint, turns, patience=600)
    held = turns.ask(THERE, 1, wake=lambda _: None)
    many = []
    for n in range(20):
        many.append(start(lane, f"2001:db8:1:2::{n + 1:x}"))
        await true(lambda n=n: turns.waiting == n + 1)
    _, other = start(lane, "2001:db8:1:3::1")
    await true(lambda: turns.waiting == 21)
    turns.leave(held)
    await other
    assert sum(task.done() for _, task in many) <= 2
    await asyncio.gather(*(task for _, task in many))
    assert [request.status for request, _ in many] == [200] * 20


async def test_a_client_that_leaves_while_it_waits_gives_its_place_back():
    endpoint, turns = Endpoint(), Turns(1)
    held = turns.ask(THERE, 1, wake=lambda _: None)
    request, task = start(PermitLane(endpoint, turns, patience=600))
    await true(lambda: turns.waiting == 1)
    request.gone.set()
    with pytest.raises(ClientGone):
        await task
    assert (turns.waiting, endpoint.asked) == (0, [False])
    turns.leave(held)
    assert turns.free == 1


async def test_nobody_hashes_for_a_client_that_has_left_when_its_turn_comes():
    endpoint, turns = Endpoint(), Turns(1)
    request = exchange()

    async def leave(scope, receive, send):
        await endpoint(scope, receive, send)
        request.gone.set()

    with pytest.raises(ClientGone):
        await PermitLane(leave, turns).serve(request.scope, request.receive, request.send)
    assert (turns.free, endpoint.asked) == (1, [False])


async def test_a_crash_gives_the_permit_back():
    endpoint, turns = Endpoint(), Turns(1)
    endpoint.fails = True
    request = exchange()
    with pytest.raises(RuntimeError, match="told you"):
        await PermitLane(endpoint, turns).serve(request.scope, request.receive, request.send)
    await true(lambda: turns.free == 1)


async def test_the_permit_of_a_cancelled_request_is_taken_until_its_thread_is_done():
    endpoint, turns = Endpoint(), Turns(1)
    endpoint.may_end.clear()
    _, task = start(PermitLane(endpoint, turns))
    await true(lambda: endpoint.hashing == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (turns.free, endpoint.hashing) == (0, 1)
    endpoint.may_end.set()
    await true(lambda: turns.free == 1)
