"""Waiting polls: they ask the endpoint again exactly when there may be news."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from pipedai.server import long_poll
from pipedai.server.long_poll import LongPoll
from pipedai.server.outer import LOG
from pipedai.server.request_scope import CLIENT, ClientGone
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.server.ticket import POLL

pytestmark = pytest.mark.anyio

WORKER = UUID("0192b7a0-0000-7000-8000-00000000000a")
POOL = UUID("0192b7a0-0000-7000-8000-00000000000c")
OTHER = UUID("0192b7a0-0000-7000-8000-00000000000b")


class Endpoint:
    """Stands in for the poll endpoint, and hands out `runs` without a database."""

    def __init__(self, *, wait=10.0, order=100):
        self.wait = wait
        self.order = order
        self.status = 200
        self.runs: list[str] = []
        self.next_due = None
        self.pools: list[UUID] = []
        self.tickets = []
        self.asked = 0
        self.running = 0
        self.most_running = 0
        # The workspace of each worker, and the workers in the order in which the lane asked about them.
        self.workspaces = {}
        self.asked_for = []
        self.during = None

    async def __call__(self, scope, receive, send):
        self.asked += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        assert (await receive())["body"] == b"the body"
        ticket = scope[POLL]
        self.tickets.append(ticket)
        self.asked_for.append(ticket.worker_id)
        ticket.workspace_id = self.workspaces.get(ticket.worker_id)
        ticket.wait_seconds = self.wait
        if ticket.is_first_ask:
            ticket.order = self.order
        runs = list(self.runs)
        if self.during:
            await self.during()
        if self.status == 200:
            ticket.empty = not runs
            ticket.next_due_seconds = self.next_due
            ticket.pool_ids = list(self.pools)
        self.running -= 1
        body = json.dumps({"runs": runs, "asked": ticket.asked}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def until_asked(self, times):
        async with asyncio.timeout(60):
            while self.asked < times or self.running:
                await asyncio.sleep(0.001)


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def lane(endpoint, listener):
    return LongPoll(endpoint, listener, turns=2)


def start(lane, worker=WORKER, address="203.0.113.9"):
    """Starts a poll, and returns its exchange and its task."""
    exchange = Exchange(http_scope(query="wait=10") | {LOG: {}, CLIENT: address}, [b"the body"])

    async def serve():
        async with asyncio.timeout(60):
            await lane.serve(worker, exchange.scope, exchange.receive, exchange.send)
        return exchange

    return exchange, asyncio.ensure_future(serve())


async def test_runs_are_handed_out_at_once(lane, endpoint):
    endpoint.runs = ["r"]
    exchange = await start(lane)[1]
    assert exchange.json == {"runs": ["r"], "asked": 1}


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
async def test_any_other_answer_is_passed_on_at_once(lane, endpoint, status):
    endpoint.status = status
    exchange = await start(lane)[1]
    assert exchange.status == status
    assert endpoint.asked == 1


async def test_a_poll_that_does_not_want_to_wait_is_answered(lane, endpoint):
    endpoint.wait = 0.0
    exchange = await start(lane)[1]
    assert exchange.json == {"runs": [], "asked": 1}


@pytest.mark.parametrize(
    ("method", "body", "holds_ticket"),
    [
        ("POST", b'{"claimId": "a"}', False),
        ("POST", b'{"claimId": "a", "wait": 5}', True),
        ("GET", b"", True),
    ],
)
async def test_a_claim_waits_only_if_its_body_has_a_wait(listener, method, body, holds_ticket):
    asked = []

    async def endpoint(scope, receive, send):
        asked.append((POLL in scope, (await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    exchange = Exchange(http_scope(method) | {LOG: {}, CLIENT: "203.0.113.9"}, [body])
    lane = LongPoll(endpoint, listener, turns=2)
    await lane.serve(WORKER, exchange.scope, exchange.receive, exchange.send)
    assert exchange.status == 200
    assert asked == [(holds_ticket, body)]


async def test_a_change_makes_it_ask_again(lane, endpoint, listener):
    _, poll = start(lane)
    await endpoint.until_asked(1)
    endpoint.runs = ["r"]
    listener.deliver(f"changed {WORKER}")
    assert (await poll).json == {"runs": ["r"], "asked": 2}


async def test_a_change_without_runs_leaves_it_waiting(lane, endpoint, listener):
    _, poll = start(lane)
    await endpoint.until_asked(1)
    listener.deliver(f"changed {WORKER}")
    await endpoint.until_asked(2)
    assert not poll.done()
    endpoint.status = 401
    listener.deliver(f"changed {WORKER}")
    assert (await poll).status == 401


async def test_another_worker_s_change_does_not_wake_it(lane, endpoint, listener):
    _, poll = start(lane)
    await endpoint.until_asked(1)
    listener.deliver(f"changed {OTHER}")
    listener.deliver("changed")
    listener.deliver("")
    listener.deliver(f"polling {WORKER} soon")
    listener.deliver(f"unheard-of {WORKER}")
    await asyncio.sleep(0.02)
    assert endpoint.asked == 1
    poll.cancel()


async def test_one_run_of_a_pool_makes_one_of_its_many_waiting_polls_ask(lane, endpoint, listener):
    endpoint.pools = [POOL]
    polls = [start(lane, worker=uuid4())[1] for _ in range(500)]
    # Each asks once more after it has begun to listen to the pool.
    await endpoint.until_asked(1000)
    assert listener.waiting == 500
    endpoint.runs = ["r"]
    listener.deliver(f"pool {POOL} 1")
    listener.deliver(f"pool {uuid4()} 3")
    await endpoint.until_asked(1001)
    listener.deliver(f"pool {POOL} 2")
    await endpoint.until_asked(1003)
    await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.05)
    assert endpoint.asked == 1003
    assert sum(poll.done() for poll in polls) == 3
    for poll in polls:
        poll.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    assert not listener._ears


async def test_a_poll_hears_of_a_pool_that_its_worker_joins_and_of_none_that_it_left(
    lane, endpoint, listener
):
    _, poll = start(lane)
    await endpoint.until_asked(1)
    listener.deliver(f"pool {POOL} 1")
    endpoint.pools = [POOL]
    listener.deliver(f"changed {WORKER}")
    await endpoint.until_asked(3)
    endpoint.pools = []
    listener.deliver(f"pool {POOL} 1")
    await endpoint.until_asked(4)
    listener.deliver(f"pool {POOL} 1")
    await asyncio.sleep(0.02)
    assert endpoint.asked == 4
    endpoint.runs = ["r"]
    listener.deliver(f"changed {WORKER}")
    assert (await poll).json == {"runs": ["r"], "asked": 5}


async def test_a_change_while_it_asks_is_not_lost(lane, endpoint, listener):
    async def change():
        endpoint.during = None
        endpoint.runs = ["r"]
        listener.deliver(f"changed {WORKER}")

    endpoint.during = change
    _, poll = start(lane)
    assert (await poll).json == {"runs": ["r"], "asked": 2}


async def test_changes_that_come_together_are_one_question(lane, endpoint, listener):
    _, poll = start(lane)
    await endpoint.until_asked(1)
    for _ in range(50):
        listener.deliver(f"changed {WORKER}")
    await endpoint.until_asked(2)
    await asyncio.sleep(0.02)
    assert endpoint.asked == 2
    poll.cancel()


async def test_a_newer_poll_ends_it_with_the_empty_answer(lane, endpoint, listener):
    exchange, poll = start(lane)
    await endpoint.until_asked(1)
    listener.deliver(f"polling {WORKER} 101")
    assert (await poll).json == {"runs": [], "asked": 1}
    assert endpoint.tickets[0].superseded
    assert exchange.scope[LOG] == {"asked": 1, "superseded": True}


async def test_a_newer_poll_that_began_while_it_asked_ends_it(lane, endpoint, listener):
    async def newer():
        listener.deliver(f"polling {WORKER} 101")

    endpoint.during = newer
    assert (await start(lane)[1]).json == {"runs": [], "asked": 1}


@pytest.mark.parametrize("order", [1, 99, 100])
async def test_its_own_and_older_polls_do_not_touch_it(lane, endpoint, listener, order):
    _, poll = start(lane)
    await endpoint.until_asked(1)
    listener.deliver(f"polling {WORKER} {order}")
    await asyncio.sleep(0.02)
    assert not poll.done()
    assert endpoint.asked == 1
    poll.cancel()


async def test_it_asks_once_more_when_the_time_is_up(lane, endpoint):
    # On a busy machine the poll's time may end before it can wait. Then we try again with more time.
    for endpoint.wait in (0.05, 1.0, 10.0):
        exchange = await start(lane)[1]
        if exchange.json["asked"] > 1:
            break
    assert exchange.status == 200
    assert exchange.json == {"runs": [], "asked": 2}


async def test_it_asks_again_when_the_next_run_becomes_due(lane, endpoint):
    async def queue():
        endpoint.runs = ["r"]

    endpoint.next_due, endpoint.during = 0.11, queue
    _, poll = start(lane)
    assert (await poll).json == {"runs": ["r"], "asked": 2}


async def test_a_due_run_that_is_not_handed_out_does_not_make_it_ask_without_pause(lane, endpoint):
    endpoint.next_due, endpoint.wait = 0.0, 0.25
    await start(lane)[1]
    assert endpoint.asked <= 4


async def test_it_looks_again_now_and_then_and_more_often_when_nothing_is_heard(
    lane, endpoint, listener, monkeypatch
):
    monkeypatch.setattr(long_poll, "UNHEALTHY_RECHECK_SECONDS", 0.02)
    _, poll = start(lane)
    await endpoint.until_asked(1)
    await asyncio.sleep(0.05)
    assert endpoint.asked == 1
    listener.healthy = False
    listener.deliver(f"changed {WORKER}")
    await endpoint.until_asked(4)
    listener.healthy = True
    monkeypatch.setattr(long_poll, "RECHECK_SECONDS", 0.02)
    await endpoint.until_asked(6)
    poll.cancel()


async def test_a_client_that_leaves_ends_it_silently(lane, endpoint, listener):
    exchange, poll = start(lane)
    await endpoint.until_asked(1)
    exchange.gone.set()
    with pytest.raises(ClientGone):
        await poll
    assert exchange.sent == []
    assert listener._ears == {}


async def test_a_server_that_stops_answers_it_at_once_and_lets_no_other_wait(lane, endpoint):
    _, poll = start(lane)
    await endpoint.until_asked(1)
    lane.stop()
    assert (await poll).json == {"runs": [], "asked": 1}
    assert (await start(lane)[1]).json == {"runs": [], "asked": 1}


async def test_many_that_wake_together_take_turns(lane, endpoint, listener):
    async def slow():
        await asyncio.sleep(0.001)

    endpoint.during = slow
    polls = [start(lane)[1] for _ in range(30)]
    await endpoint.until_asked(30)
    listener.deliver(f"changed {WORKER}")
    await endpoint.until_asked(60)
    assert endpoint.most_running == 2
    lane.stop()
    await asyncio.gather(*polls)


async def test_a_thousand_that_wake_together_delay_another_workspace_by_no_turn(
    lane, endpoint, listener
):
    flood, mine = uuid4(), uuid4()
    workers = [uuid4() for _ in range(1000)]
    endpoint.workspaces = {**dict.fromkeys(workers, flood), OTHER: mine}
    polls = [start(lane, worker)[1] for worker in (*workers, OTHER)]
    await endpoint.until_asked(1001)

    async def slow():
        await asyncio.sleep(0.001)

    endpoint.during = slow
    endpoint.asked_for.clear()
    for worker in (*workers, OTHER):
        listener.deliver(f"changed {worker}")
    await endpoint.until_asked(2002)
    # The lane has two turns, so it may ask about two workers before the other workspace's poll gets its first turn.
    assert endpoint.asked_for.index(OTHER) <= 3
    assert sorted(endpoint.asked_for) == sorted([*workers, OTHER])
    lane.stop()
    await asyncio.gather(*polls)


async def test_new_polls_from_one_address_do_not_delay_what_comes_from_another(lane, endpoint):
    async def slow():
        await asyncio.sleep(0.001)

    endpoint.during = slow
    polls = [start(lane, uuid4())[1] for _ in range(200)]
    polls.append(start(lane, OTHER, address="2001:db8::1")[1])
    await endpoint.until_asked(201)
    assert endpoint.asked_for.index(OTHER) <= 3
    lane.stop()
    await asyncio.gather(*polls)


async def test_a_crash_of_the_endpoint_reaches_the_caller_and_frees_its_turn(lane, endpoint):
    async def crash():
        raise RuntimeError("told you")

    endpoint.during = crash
    for _ in range(3):
        with pytest.raises(RuntimeError, match="told you"):
            await start(lane)[1]
