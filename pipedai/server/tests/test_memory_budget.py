"""The budget of bytes for bodies not yet answered and answers not yet sent."""

import asyncio
import threading
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpRequest

from pipedai.api.errors import Overloaded
from pipedai.api.parsers import StrictJSONParser
from pipedai.server.lanes import WsgiLane
from pipedai.server.memory_budget import (
    GROUPS,
    HOLDING,
    MIB,
    SMALL_BYTES,
    Holding,
    MemoryBudget,
    RequestLimit,
)
from pipedai.server.outer import Limits, Outer
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from testing.world.cast import bearer, browser, session_cookie

pytestmark = pytest.mark.anyio

TOTAL = 48
SHARE = TOTAL // GROUPS * MIB
# The bytes that large requests may hold of an address's quarter, and of the whole budget.
LARGE = SHARE * 7 // 8
ALL_LARGE = LARGE * GROUPS


@pytest.fixture
def budget():
    return MemoryBudget(TOTAL)


def held(budget, address, size):
    """Makes a holding of `size` bytes, if there is room for it."""
    holding = Holding(budget, address)
    if not holding.has_room(size):
        return None
    holding.take(size)
    return holding


def wsgi_of(answer=b"{}", work=lambda: None):
    """Returns a WSGI application that gives this answer."""

    def wsgi(environ, start_response):
        work()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [answer]

    return wsgi


def served(budget, wsgi):
    return Outer(WsgiLane(wsgi, threads=2), limits=Limits(body_bytes=MIB), budget=budget)


# --- Who may hold how much


def test_one_address_gets_a_quarter_and_leaves_the_rest_to_others(budget):
    while held(budget, "192.0.2.1", MIB):
        pass
    assert budget.used == LARGE // MIB * MIB
    assert held(budget, "192.0.2.2", MIB)


def test_an_ipv6_subscriber_is_one_address(budget):
    assert held(budget, "2001:db8::1", LARGE)
    assert not held(budget, "2001:db8::ffff", MIB)
    assert held(budget, "2001:db8:0:1::1", MIB)


def test_small_requests_have_room_when_large_ones_have_none(budget):
    for address in range(GROUPS):
        assert held(budget, f"192.0.2.{address}", LARGE)
    assert not held(budget, "198.51.100.1", SMALL_BYTES + 1)
    small = held(budget, "198.51.100.1", SMALL_BYTES)
    assert small
    assert not small.has_room(1), "it would be large"
    assert held(budget, "192.0.2.1", SMALL_BYTES), "of an address whose large ones have none"


def test_small_requests_are_bounded_too(budget):
    addresses = [f"192.0.2.{n}" for n in range(GROUPS + 1)]
    for address in addresses:
        while held(budget, address, SMALL_BYTES):
            pass
    assert budget.used == TOTAL * MIB


def test_everything_goes_back_when_the_last_keeper_leaves(budget):
    ended = []
    holding = Holding(budget, "192.0.2.1")
    holding.take(100)
    holding.keep()
    holding.at_end(lambda: ended.append(1))
    holding.leave()
    assert (budget.used, ended) == (100, [])
    holding.leave()
    assert (budget.used, budget._by_group, ended) == (0, {}, [1])


# --- Bodies


async def test_a_body_without_room_is_a_503_and_nothing_is_done(budget):
    called = []
    held(budget, "203.0.113.9", LARGE)
    app = served(budget, wsgi_of(work=lambda: called.append(1)))
    body = [b"x" * SMALL_BYTES, b"x"]
    exchange = await Exchange(http_scope("POST"), body).run(app)
    assert exchange.status == 503
    assert exchange.json["code"] == "overloaded"
    assert exchange.headers["retry-after"] == "1"
    assert not called
    assert budget.used == LARGE


async def test_small_bodies_and_none_go_on_meanwhile(budget):
    held(budget, "203.0.113.9", LARGE)
    app = served(budget, wsgi_of())
    for exchange in (
        Exchange(http_scope("POST"), [b"x" * SMALL_BYTES]),
        Exchange(http_scope("GET")),
        Exchange(http_scope("POST", client=("203.0.113.10", 1)), [b"x" * MIB]),
    ):
        assert (await exchange.run(app)).status == 200
    assert budget.used == LARGE


async def test_a_body_is_kept_in_one_piece_however_it_came(budget):
    got = []

    def wsgi(environ, start_response):
        got.append((environ["wsgi.input"].read(), budget.used))
        return wsgi_of()(environ, start_response)

    pieces = [bytes([n % 256]) for n in range(3000)]
    await Exchange(http_scope("POST"), pieces).run(served(budget, wsgi))
    assert got == [(b"".join(pieces), 3000)]
    assert budget.used == 0


@pytest.mark.parametrize("end", ["gone", "late", "crash", "too large"])
async def test_nothing_stays_counted_however_a_request_ends(budget, end):
    def crash():
        raise RuntimeError("told you")

    limits = Limits(body_bytes=20_000, body_seconds=0.05 if end == "late" else 60)
    app = Outer(WsgiLane(wsgi_of(work=crash), threads=1), limits=limits, budget=budget)
    pieces = [b"x" * 1000] * (30 if end == "too large" else 3)
    exchange = Exchange(http_scope("POST"), pieces, ends=end in {"crash", "too large"})
    if end == "gone":
        asyncio.get_running_loop().call_later(0.05, exchange.gone.set)
        running = asyncio.ensure_future(exchange.run(app))
        while budget.used < 3000:
            await asyncio.sleep(0.001)
        exchange.gone.set()
    else:
        if end == "late":
            asyncio.get_running_loop().call_later(0.2, exchange.gone.set)
        running = asyncio.ensure_future(exchange.run(app))
    await running
    assert (budget.used, budget._by_group) == (0, {})


async def test_what_a_thread_still_works_on_counts_though_its_client_has_left(budget):
    began, go_on = threading.Event(), threading.Event()

    def work():
        began.set()
        assert go_on.wait(60)

    app = served(budget, wsgi_of(work=work))
    exchange = Exchange(http_scope("POST"), [b"x" * 5000])
    running = asyncio.ensure_future(exchange.run(app))
    while not began.is_set():
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert budget.used == 5000
    go_on.set()
    async with asyncio.timeout(60):
        while budget.used:
            await asyncio.sleep(0.001)


async def test_a_refused_body_makes_room_before_its_client_has_sent_the_rest(budget):
    held(budget, "203.0.113.9", LARGE - 2 * SMALL_BYTES)
    exchange = Exchange(http_scope("POST"), [b"x" * SMALL_BYTES] * 3, ends=False)
    running = asyncio.ensure_future(exchange.run(served(budget, wsgi_of())))
    async with asyncio.timeout(60):
        while not exchange.sent:
            await asyncio.sleep(0)
    assert not running.done()
    assert budget.used == LARGE - 2 * SMALL_BYTES
    exchange.gone.set()
    await running


# --- Answers


class Deaf(Exchange):
    """A client that takes the pieces of the answer only as far as `may` allows."""

    def __post_init__(self):
        super().__post_init__()
        self.may = asyncio.Event()

    async def send(self, message):
        await super().send(message)
        if message["type"] == "http.response.body":
            await self.may.wait()


async def until_held(budget, size):
    async with asyncio.timeout(60):
        while budget.used < size:
            await asyncio.sleep(0.001)


async def test_an_answer_counts_until_it_has_been_sent(budget):
    deaf = Deaf(http_scope())
    running = asyncio.ensure_future(deaf.run(served(budget, wsgi_of(b"x" * MIB))))
    await until_held(budget, MIB)
    assert len(deaf.body) < MIB
    deaf.may.set()
    await running
    assert len(deaf.body) == MIB
    assert budget.used == 0


async def test_what_was_to_be_read_is_a_503_when_there_is_no_room_for_it(budget):
    held(budget, "203.0.113.9", LARGE)
    for size, status in ((SMALL_BYTES, 200), (SMALL_BYTES + 1, 503)):
        exchange = await Exchange(http_scope()).run(served(budget, wsgi_of(b"x" * size)))
        assert exchange.status == status
    assert exchange.json["code"] == "overloaded"
    assert "connection" not in exchange.headers


async def test_what_was_done_is_told_all_the_same_and_then_nothing_more_is_begun(budget):
    filled = held(budget, "203.0.113.9", LARGE)
    done = []
    app = served(budget, wsgi_of(b"x" * 2 * MIB, lambda: done.append(1)))
    deaf = Deaf(http_scope("POST"))
    running = asyncio.ensure_future(deaf.run(app))
    await until_held(budget, LARGE + 2 * MIB)
    refused = await Exchange(http_scope("POST")).run(app)
    assert (refused.status, refused.json["code"], done) == (503, "overloaded", [1])
    other = Exchange(http_scope("POST", client=("203.0.113.10", 1)))
    assert (await other.run(app)).status == 200
    deaf.may.set()
    assert len((await running).body) == 2 * MIB
    filled.leave()
    assert budget.used == 0


# --- What is made of a body


def parse(budget, address, body):
    """Parses a body of a request as the API does, and returns the request's holding."""
    holding = Holding(budget, address)
    request = HttpRequest()
    request.META["asgi.scope"] = {HOLDING: holding}
    StrictJSONParser().parse(BytesIO(body), parser_context={"request": request})
    return holding


def test_what_a_body_becomes_is_held_until_the_request_is_answered(budget):
    lists = b"[" + b"[]," * 60_000 + b"[]]"
    first = parse(budget, "192.0.2.1", lists)
    assert budget.used == 200 * 60_002
    for number in range(2, 4):
        parse(budget, f"192.0.2.{number}", lists)
    with pytest.raises(Overloaded):
        parse(budget, "192.0.2.9", lists)
    parse(budget, "192.0.2.9", b'{"name": "small"}')
    first.leave()
    parse(budget, "192.0.2.9", lists)


def test_a_body_that_is_parsed_again_is_held_once(budget):
    holding = Holding(budget, "192.0.2.1")
    assert holding.take_parsed(MIB)
    assert holding.take_parsed(MIB)
    assert budget.used == MIB
    holding.leave()
    assert budget.used == 0


# --- Requests of one subject


def test_a_place_is_free_again_when_the_request_has_ended(budget, rf):
    limit = RequestLimit(2)
    requests = []
    for _ in range(3):
        request = rf.get("/")
        request.META["asgi.scope"] = {HOLDING: Holding(budget, "192.0.2.1")}
        requests.append(request)
    assert [limit.admits("a", request) for request in requests] == [True, True, False]
    assert limit.admits("b", requests[2])
    requests[0].META["asgi.scope"][HOLDING].leave()
    assert limit.admits("a", requests[2])
    for request in requests[1:]:
        request.META["asgi.scope"][HOLDING].leave()
    assert not limit._counts


def test_where_nobody_says_when_an_answer_was_sent_all_are_admitted(rf):
    limit = RequestLimit(1)
    assert all(limit.admits("a", rf.get("/")) for _ in range(3))


@pytest.mark.parametrize("who", ["key", "user", "worker"])
def test_a_caller_counts_for_their_workspace_from_whatever_address_they_come(cast, budget, who):
    """From the first answer on. Before that nobody has checked the token, so the request counts for its address."""
    token, cookie = cast.mint("pwk", role="viewer"), session_cookie(cast.owner)
    path = f"/api/v1/environments/{cast.environment.id}/triggers"
    client = browser(cookie) if who == "user" else bearer(token)
    headers = {b"authorization": b"bearer  " + token.encode()}
    if who == "user":
        headers = {b"cookie": b"junk=1; auth_token=" + cookie.encode() + b"; more=2"}
    if who == "worker":
        worker, path = cast.worker, f"/api/v1/workers/{cast.worker.worker_id}/poll?wait=0"
        client = cast.worker_client()
        headers = {b"authorization": b"Bearer " + worker.worker_token.encode()}
    first = Holding(budget, "192.0.2.1", path, headers.items())
    assert first.group == "192.0.2.1"
    first.take(1000)
    scope: Any = {"asgi.scope": {HOLDING: first}}
    assert client.get(path, **scope).status_code == 200
    assert first.group == cast.workspace.id
    assert budget._by_group == {cast.workspace.id: 1000}
    assert Holding(budget, "198.51.100.7", path, headers.items()).group == cast.workspace.id
    wrong = {name: value.replace(b"; more", b"x") + b"x" for name, value in headers.items()}
    assert Holding(budget, "198.51.100.7", path, wrong.items()).group == "198.51.100.7"
    first.leave()
    assert budget.used == 0


def test_a_plan_is_a_read_whose_large_answer_may_be_refused(cast, budget):
    holding = Holding(budget, "192.0.2.1")
    body = {"managedBy": "acme", "resources": []}
    url = f"/api/v1/environments/{cast.environment.id}/plan"
    scope = {"asgi.scope": {HOLDING: holding}}
    assert cast.client(cast.admin).post(url, body, **scope).status_code == 200
    assert holding.is_read
    holding.leave()
