"""Hosts and tenants take turns at deliveries, so that none of them delays another."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from pipedai.ids import new_id
from pipedai.outgoing import attempts
from pipedai.outgoing import due as due_module
from pipedai.outgoing.due import Memory, Taker, claim_due, taker_of
from pipedai.outgoing.posts import Answer
from pipedai.sql import Row, execute, fetch_all
from testing.probes.plans import explained, prefer_indexes
from testing.processes.racing import accepted, at_once
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, Cast, make_cast
from testing.world.many_deliveries import add_deliveries
from testing.world.tenants import add_environments
from triggers.models import Delivery
from triggers.webhooks.sending import WEBHOOKS, send_test

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATE = datetime(2100, 1, 1, tzinfo=UTC)
SLOW = timedelta(seconds=10)
AT_ONCE, PER_HOST = WEBHOOKS.shares, WEBHOOKS.per_host
DELIVERED = Answer(200, 5, None, b"", None)


def queue(cast: Cast, url: str) -> UUID:
    return send_test(trigger_id=cast.add_trigger(webhook_url=url), actor=TEST_ACTOR)


def a_webhook(cast: Cast) -> UUID:
    """Adds a trigger with a webhook, for which a test then makes many deliveries."""
    return cast.add_trigger(worker_id=None)


def claim(
    *,
    room: int = 100,
    per_host: int = 100,
    busy: Mapping[Taker, int] | None = None,
    memory: Memory | None = None,
    now: datetime = LATE,
) -> list[Row]:
    return claim_due(
        WEBHOOKS, room=room, busy=busy or {}, per_host=per_host, memory=memory, now=now
    )


def taken_by(claimed: list[Row]) -> Counter[UUID]:
    """Returns how many shares each workspace got."""
    return Counter(row["workspace_id"] for row in claimed)


class Sender:
    """A sender whose clock moves only when a test calls `wait()`.

    `takes` says how long the requests of each workspace take.
    """

    def __init__(self, started: datetime, takes: Mapping[UUID, timedelta]) -> None:
        self.now = started
        self.begun: dict[UUID, datetime] = {}
        self._takes, self._memory = takes, Memory(trusting=True)
        self._under_way: list[tuple[datetime, Row]] = []

    def look(self) -> None:
        """Claims deliveries for the free places until none is left to claim or no place is free."""
        while claimed := claim_due(
            WEBHOOKS,
            room=AT_ONCE - len(self._under_way),
            busy=Counter(taker_of(row) for _, row in self._under_way),
            per_host=PER_HOST,
            memory=self._memory,
            now=self.now,
        ):
            for row in claimed:
                self.begun[row["id"]] = self.now
                takes = self._takes.get(row["workspace_id"], timedelta(0))
                self._under_way.append((self.now + takes, row))
            if len(self._under_way) == AT_ONCE:
                break

    def wait(self, seconds: float) -> None:
        """Moves the clock, and records the answers that come meanwhile."""
        self.now += timedelta(seconds=seconds)
        for ends, row in self._under_way:
            if ends <= self.now:
                attempts.record(WEBHOOKS, [(row, DELIVERED)], now=self.now)
        self._under_way = [entry for entry in self._under_way if entry[0] > self.now]


# --- Whose turn it is


def test_of_one_host_no_more_than_its_share_is_claimed(cast: Cast) -> None:
    slow = cast.add_trigger(webhook_url="http://slow.example/")
    for _ in range(10):
        send_test(trigger_id=slow, actor=TEST_ACTOR)
    quick = queue(cast, "http://quick.example/")
    claimed = claim(per_host=3)
    assert [row["host"] for row in claimed].count("slow.example") == 3
    assert quick in {row["id"] for row in claimed}
    slow_taker = Taker(cast.workspace.id, cast.environment.id, "slow.example")
    assert claim(per_host=3, busy={slow_taker: 3}) == []
    assert len(claim(per_host=3, busy={slow_taker: 2})) == 1


def test_a_workspace_gets_no_more_places_than_it_leaves_to_others(cast: Cast) -> None:
    for mine in add_environments(cast, 3):
        add_deliveries(a_webhook(mine), 12, hosts=12, due=NOW)
    assert list(taken_by(claim(room=10)).values()) == [5]


def test_an_environment_leaves_places_to_the_others_of_its_workspace(cast: Cast) -> None:
    first, second = add_environments(cast, 2)
    add_deliveries(a_webhook(first), 30, hosts=30, due=NOW)
    claimed = claim(room=12)
    assert len(claimed) == 4
    add_deliveries(a_webhook(second), 1, due=NOW, domain="late.example")
    busy = Counter(taker_of(row) for row in claimed)
    (late,) = claim(room=8, busy=busy)
    assert late["environment_id"] == second.environment.id


def test_however_many_workspaces_are_slow_the_next_one_finds_a_place(cast: Cast) -> None:
    greedy = {Taker(new_id(), new_id(), f"{n}.example"): 1 for n in range(31)}
    queue(cast, "http://mine.example/")
    queue(cast, "http://mine-too.example/")
    mine = Taker(cast.workspace.id, cast.environment.id, "mine.example")
    assert len(claim(room=1, busy=greedy)) == 1
    assert claim(room=1, busy={**greedy, mine: 1}) == []


def test_the_workspace_with_the_fewest_places_comes_first(cast: Cast) -> None:
    first, second, third = add_environments(cast, 3, workspaces=3)
    for n, mine in enumerate((first, second, third)):
        add_deliveries(a_webhook(mine), 5, hosts=5, due=NOW, domain=f"{n}.example")
    busy = {
        Taker(first.workspace.id, first.environment.id, "a"): 2,
        Taker(second.workspace.id, second.environment.id, "b"): 1,
    }
    assert taken_by(claim(room=29, busy=busy)) == {
        first.workspace.id: 5, second.workspace.id: 5, third.workspace.id: 5,
    }  # fmt: skip


def test_of_workspaces_with_as_many_places_the_one_served_longest_ago_comes_first(
    cast: Cast,
) -> None:
    tenants = add_environments(cast, 4, workspaces=4)
    for age, mine in enumerate(tenants):
        due = NOW - timedelta(hours=age)
        add_deliveries(a_webhook(mine), 9, hosts=9, due=due, domain=f"{age}.example")
    memory = Memory(trusting=True)
    served = [claim(room=1, memory=memory)[0]["workspace_id"] for _ in range(8)]
    in_turn = [mine.workspace.id for mine in reversed(tenants)]
    assert served == in_turn * 2


def test_of_a_workspace_the_longest_waiting_comes_first(cast: Cast) -> None:
    old = queue(cast, "http://a.example/")
    Delivery.objects.filter(id=old).update(next_attempt_at=NOW)
    queue(cast, "http://b.example/")
    assert [row["id"] for row in claim(room=1)] == [old]


def test_what_is_not_due_is_not_claimed(cast: Cast) -> None:
    add_deliveries(a_webhook(cast), 3, hosts=3, due=NOW + timedelta(seconds=1))
    assert claim(now=NOW) == []


# --- One tenant's thousand slow webhooks


@cases(("environments", "hosts"), [(1, 1), (1, 250), (25, 1), (25, 40)], undone=True)
def test_a_thousand_slow_deliveries_of_one_workspace_delay_another_by_no_second(
    cast: Cast, environments: int, hosts: int
) -> None:
    slow = add_environments(cast, environments)
    for n, mine in enumerate(slow):
        count = 1000 // environments
        add_deliveries(a_webhook(mine), count, hosts=hosts, due=NOW, domain=f"{n}.slow")
    (other,) = add_environments(cast, 1)
    sender = Sender(NOW, {slow[0].workspace.id: SLOW})
    delays = []
    for round_ in range(4):
        sender.look()
        sender.wait(1.5)
        add_deliveries(a_webhook(other), 1, due=sender.now, domain=f"{round_}.quick")
        queued = Delivery.objects.get(host=f"0.{round_}.quick")
        sender.look()
        delays.append(sender.begun[queued.id] - sender.now)
        sender.wait(5)
    assert delays == [timedelta(0)] * 4
    # The slow workspace has had its turns too.
    assert len(sender.begun) >= 4 + 2 * PER_HOST


def test_workspaces_that_fill_a_sender_delay_another_by_one_free_place(cast: Cast) -> None:
    slow = add_environments(cast, 40, workspaces=40)
    for n, mine in enumerate(slow):
        add_deliveries(a_webhook(mine), 25, hosts=25, due=NOW, domain=f"{n}.slow")
    (other,) = add_environments(cast, 1)
    sender = Sender(NOW, {mine.workspace.id: SLOW for mine in slow})
    for _ in range(15):
        # The requests begin at different times, so that they are answered one by one and not all at once.
        sender.look()
        sender.wait(1)
    add_deliveries(a_webhook(other), 1, due=sender.now, domain="quick")
    queued, delivery = sender.now, Delivery.objects.get(host="0.quick")
    while delivery.id not in sender.begun:
        sender.look()
        sender.wait(0.25)
        assert sender.now < queued + SLOW + timedelta(seconds=1)


# --- How many pairs one query visits


def test_looks_that_see_only_a_part_come_round_to_everybody(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_module, "_MOST_PAIRS", 3)
    tenants = add_environments(cast, 7, workspaces=7)
    for n, mine in enumerate(tenants):
        add_deliveries(a_webhook(mine), 2, hosts=2, due=NOW, domain=f"{n}.example")
    memory = Memory(trusting=True)
    claimed = [row for _ in range(8) for row in claim(memory=memory)]
    assert taken_by(claimed) == {mine.workspace.id: 2 for mine in tenants}
    assert claim(memory=memory) == []


def test_a_look_from_the_middle_goes_on_at_the_beginning(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_module, "_MOST_PAIRS", 2)
    first, *others = add_environments(cast, 3, workspaces=3)
    for n, mine in enumerate((first, *others)):
        due = NOW if mine is first else LATE
        add_deliveries(a_webhook(mine), 1, due=due, domain=f"{n}.example")
    memory = Memory(trusting=True)
    assert len(claim(memory=memory, now=NOW)) == 1
    add_deliveries(a_webhook(first), 1, due=NOW, domain="again.example")
    assert memory.after != (UUID(int=0), "")
    assert len(claim(memory=memory, now=NOW)) == 1


def test_a_sender_remembers_no_more_workspaces_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_module, "_MOST_REMEMBERED", 2)
    memory, ids = Memory(trusting=True), [new_id() for _ in range(3)]
    for id_ in (*ids, ids[1]):
        memory.serve(id_)
    assert list(memory.served) == [ids[2], ids[1]]


def test_a_look_at_ten_thousand_due_deliveries_reads_a_few_of_each_host(cast: Cast) -> None:
    for n, mine in enumerate(add_environments(cast, 20, workspaces=10)):
        add_deliveries(a_webhook(mine), 500, hosts=2, due=NOW, domain=f"{n}.slow")
    execute("ANALYZE delivery", {})
    with explained() as plans:
        claimed = claim(room=AT_ONCE, per_host=PER_HOST)
    assert len(claimed) > AT_ONCE / 2
    assert "delivery" not in plans.read_whole
    assert plans.rows_read("delivery") < 1_000


def test_a_look_and_its_claim_read_a_few_deliveries_also_after_a_burst(cast: Cast) -> None:
    trigger_id = a_webhook(cast)
    # PostgreSQL would expect no rows in the pages that rows of other tests have left.
    execute("TRUNCATE delivery CASCADE", {})
    add_deliveries(trigger_id, 1, due=NOW)
    execute("ANALYZE delivery", {})
    add_deliveries(trigger_id, 2_000, due=NOW)
    prefer_indexes()
    with explained(("WITH free", "WITH RECURSIVE")) as plans:
        claim(room=AT_ONCE, per_host=PER_HOST)
    assert plans.rows_read("delivery") < 100


# --- Several senders


def test_senders_at_once_claim_nothing_twice_and_forget_nothing(committed_cast: Cast) -> None:
    tenants = [make_cast() for _ in range(3)]
    for n, mine in enumerate(tenants):
        add_deliveries(a_webhook(mine), 40, hosts=20, due=NOW, domain=f"{n}.example")

    def drain() -> list[Any]:
        memory, ids, idle = Memory(trusting=True), [], 0
        # A sender skips what another one has locked, so it may find nothing before all is done.
        while idle < 5:
            claimed = claim(room=9, per_host=4, memory=memory)
            idle = 0 if claimed else idle + 1
            ids += [row["id"] for row in claimed]
        return ids

    by_sender = accepted(at_once(drain, drain, drain))
    claimed = [id_ for ids in by_sender for id_ in ids] + drain()
    assert len(claimed) == len(set(claimed)) == 120
    assert not fetch_all("SELECT FROM delivery WHERE next_attempt_at <= %(now)s", {"now": LATE})
