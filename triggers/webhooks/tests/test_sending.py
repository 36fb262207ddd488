"""Deliveries are claimed, sent and recorded; none is lost, and no slow host delays another."""

import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from standardwebhooks.webhooks import Webhook

from audit.models import AuditEntry
from pipedai import loop
from pipedai.loop import registered_jobs
from pipedai.outgoing import attempts, due
from pipedai.outgoing import pool as senders_module
from pipedai.outgoing.attempts import BACKOFF_SECONDS, verdict
from pipedai.outgoing.due import (
    CLAIM_SECONDS,
    Memory,
    Taker,
    _Shares,
    claim_due,
    taker_of,
)
from pipedai.outgoing.pool import Crew, Senders
from pipedai.outgoing.posts import Answer, OwnAnswer
from pipedai.sql import execute, fetch_one
from testing.probes.statement_count import counted
from testing.processes.forks import forked, kill
from testing.processes.racing import at_once
from testing.processes.webhook_receiver import Receiver, receiving
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, make_cast
from triggers.models import Delivery, DeliveryAttempt, Trigger
from triggers.models.trigger import WEBHOOK_SECRET
from triggers.webhooks.sending import WEBHOOKS, send_test
from workspaces.encryption.keys import seal_into

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECRET = "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQ="
LATE = datetime(2100, 1, 1, tzinfo=UTC)
TAKEN = Answer(200, 5, None, b"")


def queue(cast, url: str, **trigger) -> Delivery:
    trigger_id = cast.add_trigger(webhook_url=url, **trigger)
    return Delivery.objects.get(id=send_test(trigger_id=trigger_id, actor=TEST_ACTOR))


def claim(now=LATE, *, room=100, per_host=100, busy=None):
    return claim_due(WEBHOOKS, room=room, busy=busy or {}, per_host=per_host, now=now)


def attempt(now=LATE) -> Answer | None:
    """Claims the one delivery that is due, sends it, and records the answer, which it returns."""
    (row,) = claim(now)
    answer = attempts.send(WEBHOOKS, row)
    attempts.record(WEBHOOKS, [(row, answer)], now=now)
    return answer


def actions() -> list[str]:
    return [
        entry.action
        for entry in AuditEntry.objects.filter(action__startswith="webhook.").order_by("id")
        if entry.action != "webhook.tested"
    ]


# --- What is sent


def test_the_request_is_the_body_with_its_signatures(cast, receiver: Receiver):
    delivery = queue(cast, receiver.url(), webhook_secret=SECRET)
    attempt()
    (request,) = receiver.received
    assert request.path == "/hook?key=1"
    assert request.body == delivery.body.encode()
    assert request.headers["webhook-id"] == delivery.message_id
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["X-Pipedai-Signature"].startswith("sha256=")
    # The library checks that the time in the signature is the present, so this claim does not happen at LATE.
    (row,) = [queue(cast, receiver.url(), webhook_secret=SECRET)]
    (claimed,) = claim(now=None)
    assert claimed["id"] == row.id
    attempts.send(WEBHOOKS, claimed)
    assert Webhook(SECRET).verify(receiver.received[1].body, receiver.received[1].headers)


def test_without_a_secret_there_are_no_signatures(cast, receiver: Receiver):
    queue(cast, receiver.url())
    attempt()
    names = {name.lower() for name in receiver.received[0].headers}
    assert "webhook-id" in names
    assert names & {"x-pipedai-signature", "webhook-signature"} == set()


def test_the_secret_is_the_one_that_the_trigger_has_when_it_is_sent(cast, receiver: Receiver):
    delivery = queue(cast, receiver.url())
    trigger = Trigger.objects.get(id=delivery.trigger_id)
    seal_into(WEBHOOK_SECRET, trigger, SECRET.encode())
    trigger.save()
    attempt()
    assert "webhook-signature" in receiver.received[0].headers


def test_a_redirect_is_not_followed(cast, receiver: Receiver):
    delivery = queue(cast, receiver.url())
    receiver.answer(302, Location=receiver.url("/elsewhere"))
    attempt()
    delivery.refresh_from_db()
    assert (delivery.status, len(receiver.received)) == ("dead", 1)


# --- What follows from the answer


def test_a_2xx_is_delivered_and_audited(cast, receiver: Receiver):
    delivery = queue(cast, receiver.url())
    receiver.answer(201, b"thanks")
    attempt()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.next_attempt_at, delivery.delivered_at) == (
        "delivered",
        None,
        LATE,
    )
    kept = DeliveryAttempt.objects.get(delivery=delivery)
    assert (kept.n, kept.status_code, kept.error, kept.response_body) == (1, 201, None, "thanks")
    entry = AuditEntry.objects.get(action="webhook.delivered")
    assert (entry.actor_type, entry.target_id) == ("system", delivery.id)
    assert claim() == []


@cases("status", [300, 301, 400, 401, 404, 410])
def test_any_other_answer_is_dead_at_once(cast, receiver: Receiver, status):
    delivery = queue(cast, receiver.url())
    receiver.answer(status)
    before = len(actions())
    attempt()
    delivery.refresh_from_db()
    assert delivery.status == "dead"
    assert actions()[before:] == ["webhook.failed"]


@pytest.mark.parametrize("status", [429, 500, 503, 599])
def test_a_429_or_5xx_is_tried_again_after_each_pause_and_then_dead(
    cast, receiver: Receiver, status
):
    delivery = queue(cast, receiver.url())
    now = LATE
    for seconds in BACKOFF_SECONDS:
        receiver.answer(status)
        attempt(now)
        delivery.refresh_from_db()
        assert delivery.next_attempt_at is not None
        pause = (delivery.next_attempt_at - now).total_seconds()
        assert seconds * 0.8 <= pause <= seconds * 1.2
        assert delivery.status == "pending"
        assert claim(delivery.next_attempt_at - timedelta(milliseconds=1)) == []
        now = delivery.next_attempt_at
    assert actions() == []
    receiver.answer(status)
    attempt(now)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempt_count) == ("dead", 7)
    assert actions() == ["webhook.failed"]
    assert {request.headers["webhook-id"] for request in receiver.received} == {delivery.message_id}
    assert [a.n for a in delivery.attempts.order_by("n")] == list(range(1, 8))


def test_a_host_that_does_not_answer_is_tried_again(cast, receiver: Receiver):
    delivery = queue(cast, "http://127.0.0.1:1/")
    attempt()
    delivery.refresh_from_db()
    kept = delivery.attempts.get()
    assert delivery.status == "pending"
    assert (kept.status_code, kept.error) == (None, "could not connect")


def test_an_address_that_is_not_allowed_is_a_failed_attempt_without_the_address(cast):
    delivery = queue(cast, "http://127.0.0.1/")
    attempt()
    assert delivery.attempts.get().error == "address not allowed (WEBHOOK_ALLOWED_NETWORKS)"


def failing(retry_after: str | None, status: int = 503, error: str | None = None) -> Answer:
    return Answer(status, 5, error, b"", retry_after)


def pause(retry_after: str | None, attempts: int = 1) -> float:
    _, due = verdict(failing(retry_after), attempts=attempts, now=NOW)
    assert due is not None
    return (due - NOW).total_seconds()


@cases(
    ("retry_after", "seconds"),
    [
        ("120", 120),
        ("86400", 86_400),
        ("86401", 86_400),
        ("9" * 4000, 86_400),
        (format_datetime(NOW + timedelta(hours=2), usegmt=True), 7200),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), 86_400),
    ],
)
def test_a_later_retry_after_is_heeded_up_to_a_day(retry_after, seconds):
    assert pause(retry_after) == seconds


@cases(
    "retry_after",
    [
        None,
        "",
        "0",
        "3",
        "-5",
        "soon",
        "1.5",
        "٣",
        format_datetime(NOW - timedelta(1), usegmt=True),
    ],
)
def test_any_other_retry_after_changes_nothing(retry_after):
    assert 8 <= pause(retry_after) <= 12


def test_an_answer_that_was_not_whole_in_time_counts_as_none():
    status, due = verdict(failing(None, 200, "timed out"), attempts=1, now=NOW)
    assert status == "pending"
    assert due is not None


def test_of_an_answer_one_kib_is_kept_as_text(cast, receiver: Receiver):
    delivery = queue(cast, receiver.url())
    receiver.answer(500, b"\0\xff" + b"x" * 5000)
    attempt()
    body = delivery.attempts.get().response_body
    assert body == "\ufffd\ufffd" + "x" * 1022


def test_a_secret_that_does_not_open_is_an_alarm_and_a_failed_attempt(
    cast, receiver: Receiver, capfd
):
    delivery = queue(cast, receiver.url(), webhook_secret=SECRET)
    Trigger.objects.filter(id=delivery.trigger_id).update(webhook_secret=b"\x01broken")
    attempt()
    delivery.refresh_from_db()
    assert receiver.received == []
    assert (delivery.status, delivery.attempt_count) == ("pending", 1)
    kept = delivery.attempts.get()
    assert (kept.status_code, kept.error) == (None, "the webhook's secret does not open")
    logged = "".join(capfd.readouterr())
    assert "secret.cannot_open" in logged
    assert SECRET not in logged


# --- Claims


def test_a_claimed_delivery_is_due_again_when_its_claim_is_over(cast):
    delivery = queue(cast, "http://hooks.example/")
    assert [row["id"] for row in claim(LATE)] == [delivery.id]
    assert claim(LATE + timedelta(seconds=CLAIM_SECONDS - 1)) == []
    (again,) = claim(LATE + timedelta(seconds=CLAIM_SECONDS))
    assert (again["id"], again["message_id"]) == (delivery.id, delivery.message_id)


def test_a_sender_whose_claim_was_over_records_nothing(cast):
    delivery = queue(cast, "http://hooks.example/")
    (first,) = claim(LATE)
    (second,) = claim(LATE + timedelta(hours=1))
    attempts.record(WEBHOOKS, [(first, Answer(404, 5, None, b""))], now=LATE)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempt_count) == ("pending", 0)
    attempts.record(WEBHOOKS, [(second, TAKEN)], now=LATE)
    attempts.record(WEBHOOKS, [(second, Answer(404, 5, None, b""))], now=LATE)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts.count()) == ("delivered", 1)
    assert actions() == ["webhook.delivered"]


# --- The pool


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def make_senders():
    """Makes pools whose threads end with the test."""
    made = []

    def make(**bounds):
        made.append(Senders(replace(WEBHOOKS, **bounds)))
        return made[-1]

    yield make
    for pool in made:
        pool.finish()


def other_sessions() -> int:
    """How many connections there are to the database beside this one."""
    row = fetch_one(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        {},
    )
    assert row is not None
    return int(row["n"])


def pool_threads() -> int:
    return sum(thread.name.startswith("webhook-") for thread in threading.enumerate())


def deliver_all(pool: Senders, count: int) -> None:
    """Sends until as many deliveries as `count` are delivered."""
    wait_for(lambda: pool.top_up() == 0 and statuses() == ["delivered"] * count)
    assert pool.wait(60)


def statuses() -> list[str]:
    return sorted(Delivery.objects.values_list("status", flat=True))


def answered_before(pool: Senders, host: str) -> None:
    """Lets a host have as many shares as any host may, as if it had answered an attempt of this pool."""
    pool._memory.note(host, answered=True)


def test_a_host_has_one_share_until_it_answers_and_again_when_it_does_not(cast):
    for _ in range(8):
        for host in ("one", "other"):
            queue(cast, f"https://{host}.example/")
    memory, busy = Memory(), Counter[Taker]()

    def claimed() -> dict[str, int]:
        rows = claim_due(WEBHOOKS, room=60, busy=busy, per_host=4, memory=memory, now=LATE)
        busy.update(taker_of(row) for row in rows)
        return Counter(row["host"] for row in rows)

    assert claimed() == {"one.example": 1, "other.example": 1}
    assert claimed() == {}
    memory.note("one.example", answered=True)
    assert claimed() == {"one.example": 3}
    busy.clear()
    memory.note("one.example", answered=False)
    assert claimed() == {"one.example": 1, "other.example": 1}


def test_hosts_that_have_not_answered_leave_a_quarter_of_the_shares_to_others():
    def due_row(host: str, minute: int) -> dict[str, Any]:
        tenant = uuid4()
        due = NOW + timedelta(minutes=minute)
        return {
            "id": uuid4(),
            "workspace_id": tenant,
            "environment_id": tenant,
            "host": host,
            "next_attempt_at": due,
        }

    dead = [due_row(f"dead-{n}", n) for n in range(20)]
    live = [due_row("live", 30 + n) for n in range(4)]
    memory = Memory()
    memory.note("live", answered=True)
    chosen = [row["host"] for row in _Shares({}, 16, 4, memory).fill([*dead, *live])]
    assert len([host for host in chosen if host != "live"]) == 12
    assert chosen.count("live") == 4


def test_what_could_not_be_sent_at_all_says_nothing_about_its_host(
    committed_cast, make_senders, monkeypatch
):
    pool = make_senders(shares=8, per_host=4)
    answered_before(pool, "hooks.example")
    queue(committed_cast, "https://hooks.example/")
    refused = OwnAnswer(None, 0, "the secret does not open")
    monkeypatch.setattr(attempts, "send", lambda kind, row: refused)
    assert pool.top_up() == 1
    assert pool.wait(60)
    assert "hooks.example" in pool._memory.proven()


@cases(
    ("answer", "is_proven"),
    [
        # One tenant's URL may name a wrong port of a host to which others send as well.
        (Answer(None, 20, "the TLS handshake failed"), True),
        (Answer(None, 10_000, "no answer in time"), False),
        # A host that never ends its answers holds its shares as long as one that gives none.
        (Answer(200, 10_000, "no whole answer in time"), False),
        (Answer(503, 9_000), True),
    ],
)
def test_a_host_loses_its_shares_only_if_it_keeps_the_sender_waiting_in_vain(
    answer: Answer, is_proven: bool
):
    pool = Senders(WEBHOOKS)
    answered_before(pool, "hooks.example")
    pool._note("hooks.example", answer)
    assert pool._memory is not None
    assert ("hooks.example" in pool._memory.proven()) == is_proven


def test_a_slow_host_does_not_hold_up_another(committed_cast, receiver: Receiver, make_senders):
    pool = make_senders(shares=8, per_host=2)
    answered_before(pool, "127.0.0.1")
    slow = committed_cast.add_trigger(webhook_url=receiver.url())
    for _ in range(8):
        send_test(trigger_id=slow, actor=TEST_ACTOR)
    receiver.gate.clear()
    assert pool.top_up() == 2
    assert pool.top_up() == 0
    with receiving() as quick:
        other = queue(committed_cast, quick.url(host="localhost"))
        pool.top_up()
        wait_for(lambda: Delivery.objects.get(id=other.id).status == "delivered")
        assert {attempt.delivery_id for attempt in DeliveryAttempt.objects.all()} == {other.id}
    receiver.gate.set()
    wait_for(lambda: pool.top_up() == 0 and statuses() == ["delivered"] * 9)
    assert pool.wait(60)


def test_an_environment_of_slow_hosts_does_not_hold_up_another(
    committed_cast, receiver: Receiver, make_senders
):
    pool = make_senders(shares=6, per_host=6)
    answered_before(pool, "127.0.0.1")
    slow = committed_cast.add_trigger(webhook_url=receiver.url())
    for _ in range(8):
        send_test(trigger_id=slow, actor=TEST_ACTOR)
    receiver.gate.clear()
    assert pool.top_up() == 2
    assert pool.top_up() == 0
    with receiving() as quick:
        other = queue(make_cast(), quick.url())
        assert pool.top_up() == 1
        wait_for(lambda: Delivery.objects.get(id=other.id).status == "delivered")
    receiver.gate.set()
    wait_for(lambda: pool.top_up() == 0 and statuses() == ["delivered"] * 9)
    assert pool.wait(10)


def test_topping_up_waits_for_nobody_and_the_end_waits_for_what_is_under_way(
    committed_cast, receiver: Receiver, make_senders
):
    pool = make_senders()
    queue(committed_cast, receiver.url())
    receiver.gate.clear()
    assert pool.top_up() == 1
    assert statuses() == ["pending"]
    assert not pool.wait(0.05)
    receiver.gate.set()
    assert pool.wait(60)
    assert statuses() == ["delivered"]


def test_many_attempts_start_few_threads_and_open_fewer_connections(
    committed_cast, receiver: Receiver, make_senders, monkeypatch
):
    pool = make_senders(shares=8, per_host=8)
    trigger_id = committed_cast.add_trigger(webhook_url=receiver.url())
    for _ in range(40):
        send_test(trigger_id=trigger_id, actor=TEST_ACTOR)
    # The threads themselves, and not their numbers, which are used again.
    sending, recording, sessions = set(), set(), set()

    real_send, real_record = attempts.send, attempts.record

    def send(kind, delivery):
        sending.add(threading.current_thread())
        return real_send(kind, delivery)

    def record(kind, sent):
        real_record(kind, sent)
        recording.add(threading.current_thread())
        sessions.add(connection.connection.info.backend_pid)

    monkeypatch.setattr(attempts, "send", send)
    monkeypatch.setattr(attempts, "record", record)
    deliver_all(pool, 40)
    assert len(receiver.received) == 40
    assert len(sending) <= 8
    assert len(recording) <= WEBHOOKS.recorders
    assert len(sessions) == len(recording) == other_sessions()


def test_the_end_closes_the_connections_and_ends_the_threads(
    committed_cast, receiver: Receiver, make_senders
):
    before = pool_threads()
    pool = make_senders()
    queue(committed_cast, receiver.url())
    deliver_all(pool, 1)
    assert (pool_threads(), other_sessions()) == (before + 2, 1)
    pool.finish()
    wait_for(lambda: (pool_threads(), other_sessions()) == (before, 0))


def test_a_connection_that_has_nothing_to_do_is_closed_and_opened_again(
    committed_cast, receiver: Receiver, make_senders, monkeypatch
):
    monkeypatch.setattr("pipedai.outgoing.pool.IDLE_SECONDS", 0.05)
    pool = make_senders()
    for count in (1, 2):
        queue(committed_cast, receiver.url())
        deliver_all(pool, count)
        wait_for(lambda: other_sessions() == 0)


def test_a_connection_that_broke_costs_no_answer_and_no_thread(
    committed_cast, receiver: Receiver, make_senders
):
    pool = make_senders()
    queue(committed_cast, receiver.url())
    deliver_all(pool, 1)
    threads = pool_threads()
    execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        {},
    )
    queue(committed_cast, receiver.url())
    deliver_all(pool, 2)
    assert pool_threads() == threads


def test_an_answer_that_cannot_be_recorded_leaves_its_place_to_others(
    committed_cast, receiver: Receiver, make_senders, monkeypatch, capfd
):
    pool = make_senders(shares=1)
    trigger_id = committed_cast.add_trigger(webhook_url=receiver.url())
    for _ in range(2):
        send_test(trigger_id=trigger_id, actor=TEST_ACTOR)
    failures = iter([RuntimeError("no")])

    real_record = attempts.record

    def record(kind, sent):
        for failure in failures:
            raise failure
        real_record(kind, sent)

    monkeypatch.setattr(attempts, "record", record)
    wait_for(lambda: pool.top_up() == 0 and statuses() == ["delivered", "pending"])
    assert pool.wait(60)
    assert "webhook.not_recorded" in "".join(capfd.readouterr())


def test_each_free_place_goes_to_the_first_in_order_as_it_is_by_then():
    """Compares the choice with one that orders all candidates anew for each share."""
    chance = random.Random(7)
    for _ in range(200):
        workspaces = [UUID(int=n) for n in range(1, 5)]
        environments = {UUID(int=100 + n): chance.choice(workspaces) for n in range(6)}
        hosts = [f"{n}.example" for n in range(5)]

        def takers(count, environments=environments, hosts=hosts):
            for environment_id in chance.choices([*environments], k=count):
                yield Taker(environments[environment_id], environment_id, chance.choice(hosts))

        candidates = [
            {
                **taker._asdict(),
                "id": n,
                "next_attempt_at": NOW + timedelta(seconds=chance.randrange(9)),
            }
            for n, taker in enumerate(takers(chance.randrange(30)))
        ]
        busy, room = Counter(takers(chance.randrange(8))), chance.randrange(1, 12)
        proven = chance.sample(hosts, 3)
        first, second = Memory(), Memory()
        for memory, host in itertools.product((first, second), proven):
            memory.note(host, answered=True)
        chosen = _Shares(busy, room, 4, first).fill(candidates)

        shares, expected, left = _Shares(busy, room, 4, second), [], candidates
        while shares.room and (left := [row for row in left if shares._has_room(row)]):
            row = min(left, key=lambda row: shares._order(row))
            left = [each for each in left if each is not row]
            shares._take(taker_of(row), 1)
            shares.room -= 1
            second.serve(row["workspace_id"])
            expected.append(row)
        assert chosen == expected
        assert first.served == second.served


# --- Answers that are recorded together


def queue_many(cast, count: int) -> None:
    trigger_id = cast.add_trigger(webhook_url="https://hooks.example/")
    for _ in range(count):
        send_test(trigger_id=trigger_id, actor=TEST_ACTOR)


def test_many_answers_take_as_many_statements_as_one(cast):
    queue_many(cast, 11)
    first, *rest = claim()
    with counted() as of_one:
        attempts.record(WEBHOOKS, [(first, TAKEN)], now=LATE)
    with counted() as of_many:
        attempts.record(WEBHOOKS, [(row, TAKEN) for row in rest], now=LATE)
    assert len(of_many) == len(of_one), of_many
    assert statuses() == ["delivered"] * 11
    assert DeliveryAttempt.objects.filter(n=1, status_code=200).count() == 11
    assert actions() == ["webhook.delivered"] * 11


def test_of_answers_recorded_together_each_counts_for_its_own_delivery(cast):
    queue_many(cast, 4)
    taken, overtaken, refused, again = claim()
    Delivery.objects.filter(id=overtaken["id"]).update(next_attempt_at=LATE + timedelta(hours=1))
    answers = [TAKEN, TAKEN, Answer(404, 5, None, b"no"), Answer(503, 5, None, b"")]
    rows = [taken, overtaken, refused, again]
    attempts.record(WEBHOOKS, [*zip(rows, answers, strict=True)], now=LATE)
    found = {row.id: row for row in Delivery.objects.all()}
    seen = [(found[row["id"]].status, found[row["id"]].attempt_count) for row in rows]
    assert seen == [("delivered", 1), ("pending", 0), ("dead", 1), ("pending", 1)]
    kept = dict(DeliveryAttempt.objects.values_list("delivery_id", "status_code"))
    assert kept == {taken["id"]: 200, refused["id"]: 404, again["id"]: 503}
    assert sorted(actions()) == ["webhook.delivered", "webhook.failed"]


def test_a_delivery_that_its_sender_claimed_again_is_recorded_once(cast):
    queue_many(cast, 1)
    (early,) = claim()
    (later,) = claim(LATE + timedelta(seconds=CLAIM_SECONDS))
    attempts.record(WEBHOOKS, [(early, Answer(404, 5, None, b"")), (later, TAKEN)], now=LATE)
    assert statuses() == ["delivered"]
    assert DeliveryAttempt.objects.get().status_code == 200


def test_two_senders_that_record_the_same_deliveries_wait_for_each_other(committed_cast):
    queue_many(committed_cast, 30)
    sent = [(row, TAKEN) for row in claim()]
    at_once(
        lambda: attempts.record(WEBHOOKS, sent, now=LATE),
        lambda: attempts.record(WEBHOOKS, sent[::-1], now=LATE),
    )
    assert statuses() == ["delivered"] * 30
    assert DeliveryAttempt.objects.count() == 30
    assert actions() == ["webhook.delivered"] * 30


def test_an_answer_that_cannot_be_recorded_keeps_none_that_came_with_it(committed_cast, capfd):
    queue_many(committed_cast, 9)
    rows = claim()

    def fail_at_one(recorded):
        WEBHOOKS.after_attempts(recorded)
        if any(attempt.row["id"] == rows[4]["id"] for attempt in recorded):
            raise RuntimeError("no")

    pool = Senders(replace(WEBHOOKS, after_attempts=fail_at_one))
    pool._busy.update(taker_of(row) for row in rows)
    pool._record([(row, TAKEN) for row in rows])
    assert sorted(statuses()) == ["delivered"] * 8 + ["pending"]
    assert DeliveryAttempt.objects.count() == 8
    assert not pool.is_busy()
    assert "webhook.not_recorded" in "".join(capfd.readouterr())


def test_a_thread_works_on_what_waits_together_and_ends_when_it_is_told_to(monkeypatch):
    gate, done = threading.Event(), []

    def work(items: list[int]) -> None:
        done.append(items)
        assert gate.wait(60)

    one = Crew("together", 1, work, at_once=3)
    for item in range(6):
        one.give(item)
    wait_for(lambda: len(done) == 1)
    gate.set()
    one.stop(60)
    assert [item for items in done for item in items] == [*range(6)]
    assert max(map(len, done)) == 3
    assert not any(thread.name == "together" for thread in threading.enumerate())


def test_an_item_for_which_no_thread_can_be_started_waits_for_the_next_thread(monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    done: list[int] = []
    crew = Crew("scarce", 2, done.extend)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            crew.give(1)
    crew.give(2)
    crew.stop(60)
    assert sorted(done) == [1, 2]


def test_the_scheduler_runs_the_pool():
    (job,) = [job for job in registered_jobs() if job.name == "send-webhooks"]
    work: Any = job.work
    assert isinstance(work.__self__, Senders)
    assert job.finish == work.__self__.finish


# --- Schedulers that are killed


def schedule(killed_at: str | None = None) -> None:
    """Runs `runscheduler` in a fork, with claims of two seconds. A kill at `send` or `record` precedes the call."""
    setattr(due, "CLAIM_SECONDS", 2)  # noqa: B010 - as a test patches it
    if killed_at is not None:
        setattr(attempts, killed_at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    call_command("runscheduler")
    os._exit(0)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("killed_at", "sent_before"),
    [("send", 0), ("record", 1)],
    ids=["between-claiming-and-sending", "between-sending-and-recording"],
)
def test_a_killed_schedulers_delivery_is_sent_again_with_the_same_id(
    committed_cast, receiver: Receiver, killed_at, sent_before
):
    delivery = queue(committed_cast, receiver.url(), webhook_secret=SECRET)
    assert exit_code(forked(lambda: schedule(killed_at))) == -signal.SIGKILL
    assert statuses() == ["pending"]
    assert len(receiver.received) == sent_before
    second = forked(schedule)
    try:
        wait_for(lambda: statuses() == ["delivered"])
    finally:
        kill(second)
    ids = [request.headers["webhook-id"] for request in receiver.received]
    assert ids == [delivery.message_id] * (sent_before + 1)
    assert json.loads(receiver.received[-1].body)["runId"] == "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("answers", [True, False], ids=["answers-in-time", "hangs"])
def test_sigterm_ends_it_within_five_seconds_and_abandons_nothing(
    committed_cast, receiver: Receiver, answers
):
    queue(committed_cast, receiver.url())
    receiver.gate.clear()
    scheduler = forked(schedule)
    try:
        assert receiver.arrived.acquire(timeout=60)
    finally:
        os.kill(scheduler, signal.SIGTERM)
    if answers:
        time.sleep(0.5)
        receiver.gate.set()
    # A scheduler that takes longer than 4 s to stop exits with 1, so this one stopped by itself.
    assert exit_code(scheduler) == 0
    assert senders_module.STOP_SECONDS < loop._LONGEST_GOODBYE_SECONDS < 5
    assert statuses() == ["delivered" if answers else "pending"]
