"""queue_deliveries writes the outbox row of a completion webhook in the transition's transaction."""

from uuid import UUID

import pytest
from django.db import IntegrityError, connection

from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.run_states import STATES
from testing.world.runs import WEBHOOK_URL, Runs
from triggers.models import Delivery, Run, Trigger


def test_the_body_has_exactly_these_fields_in_this_order(runs: Runs) -> None:
    run_id = runs.running()
    runs.wait(seconds=12.3456)
    runs.complete(
        run_id,
        "failed",
        faultClass="client",
        shortMessage='Two of "three" — é 🙂',
        errorMessage="line 1\nline 2",
        costUsd="0.0120",
        exitCode=3,
        inputTokens=9,
    )
    (delivery,) = runs.deliveries(run_id)
    assert delivery["body"] == (
        f'{{"runId":"{run_id}","triggerId":"{runs.trigger_id}","status":"failed","durationMs":12345,'
        '"shortMessage":"Two of \\"three\\" — é 🙂","errorMessage":"line 1\\nline 2",'
        '"costUsd":"0.012","faultClass":"client","nothingNew":false,"endedAt":"2026-05-04T12:00:12.345Z"}'
    )


def test_what_is_not_known_is_null(runs: Runs) -> None:
    run_id = runs.queue()
    runs.cancel(run_id)
    (delivery,) = runs.deliveries(run_id)
    assert delivery["body"] == (
        f'{{"runId":"{run_id}","triggerId":"{runs.trigger_id}","status":"canceled",'
        '"durationMs":null,"shortMessage":null,"errorMessage":null,"costUsd":null,'
        '"faultClass":"none","nothingNew":false,"endedAt":"2026-05-04T12:00:00.000Z"}'
    )


def test_a_verdict_of_the_servers_says_why(runs: Runs) -> None:
    run_id = runs.lost()
    (delivery,) = runs.deliveries(run_id)
    assert delivery["body"] == (
        f'{{"runId":"{run_id}","triggerId":"{runs.trigger_id}","status":"failed",'
        '"durationMs":180000,"shortMessage":null,'
        '"errorMessage":"worker lost: no heartbeat for 180 s","costUsd":null,'
        '"faultClass":"infra","nothingNew":false,"endedAt":"2026-05-04T12:03:00.000Z"}'
    )


def test_a_delivery_is_due_at_once_and_knows_where_to_go(runs: Runs) -> None:
    run_id = runs.ended()
    (delivery,) = runs.deliveries(run_id)
    assert delivery["environment_id"] == runs.cast.environment.id
    assert (delivery["trigger_id"], delivery["run_id"]) == (runs.trigger_id, run_id)
    assert (delivery["url"], delivery["host"]) == (WEBHOOK_URL, "hooks.example")
    assert delivery["status"] == "pending"
    assert delivery["next_attempt_at"] == delivery["created_at"]
    assert delivery["delivered_at"] is None
    assert delivery["message_id"] == f"msg_{delivery['id'].hex}"


@cases(
    ("url", "host"),
    [
        ("https://Hooks.Example:8443/a?b=c#d", "hooks.example"),
        ("http://[2001:db8::1]:8080/", "2001:db8::1"),
        ("https://192.0.2.7", "192.0.2.7"),
    ],
    undone=True,
)
def test_the_host_is_the_urls_without_its_port(cast: Cast, url: str, host: str) -> None:
    runs = Runs.of(cast, webhook_url=url)
    (delivery,) = runs.deliveries(runs.ended())
    assert (delivery["url"], delivery["host"]) == (url, host)


@cases("url", [f"https://{'a' * 300}.example/", "https://[::1/"], undone=True)
def test_no_url_keeps_a_run_from_ending(cast: Cast, url: str) -> None:
    runs = Runs.of(cast, webhook_url=url)
    run_id = runs.lost()
    assert runs.stored(run_id)["status"] == "failed"
    (delivery,) = runs.deliveries(run_id)
    assert (delivery["url"], len(delivery["host"]) <= 253) == (url, True)


# The number of terminal transitions that a run in each state has gone through.
TRANSITIONS = {
    "succeeded": 1,
    "failed, client": 1,
    "failed, infra": 1,
    "timed_out": 1,
    "not started in time": 1,
    "session not continued": 1,
    "decision expired": 1,
    "decided, not continued": 1,
    "canceled while waiting": 1,
    "canceled in the queue": 1,
    "canceled by its worker": 1,
    "canceled as needless": 0,
    "lost, retry waiting": 1,
    "lost, retry claimed": 1,
    "lost, retry ended": 1,
    "lost, retry canceled": 1,
    "lost, no retry": 1,
    "lost, then reported": 2,
    "lost, asked to stop": 1,
    "overdue": 1,
    "overdue, asked to stop": 1,
    "another's, lost": 1,
}


@cases("state", STATES, undone=True)
def test_there_is_one_for_each_terminal_transition(runs: Runs, state: str) -> None:
    run_id = STATES[state](runs)
    assert len(runs.deliveries(run_id)) == TRANSITIONS.get(state, 0)
    assert (state in TRANSITIONS) == (runs.stored(run_id)["ended_at"] is not None)


def test_without_a_webhook_there_is_none(cast: Cast) -> None:
    runs = Runs.of(cast, webhook_url=None)
    runs.ended()
    runs.lost()
    runs.cancel(runs.queue())
    assert not Delivery.objects.exists()


def test_the_url_is_the_triggers_when_the_run_ends(runs: Runs) -> None:
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(webhook_url="https://new.example/")
    runs.complete(run_id)
    Trigger.objects.filter(id=runs.trigger_id).update(webhook_url="https://newer.example/")
    assert [delivery["url"] for delivery in runs.deliveries(run_id)] == ["https://new.example/"]


def test_a_run_of_a_disabled_or_deleted_trigger_has_one(runs: Runs) -> None:
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False, deleted_at=runs.now)
    runs.complete(run_id)
    assert len(runs.deliveries(run_id)) == 1


@pytest.mark.parametrize(
    ("bring", "end"),
    [
        pytest.param("running", lambda r, i: r.complete(i), id="complete"),
        pytest.param(
            "running", lambda r, i: r.complete(i, "failed", faultClass="infra"), id="retried"
        ),
        pytest.param("lost", lambda r, i: r.complete(i), id="late result"),
        pytest.param("queue", lambda r, i: r.cancel(i), id="cancel"),
    ],
)
def test_the_transition_does_not_happen_without_it(runs: Runs, bring: str, end) -> None:
    run_id: UUID = getattr(runs, bring)()
    before, retry, actions = runs.stored(run_id), runs.retry_of(run_id), runs.actions(run_id)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE delivery ADD CONSTRAINT refused CHECK (false) NOT VALID")
    with pytest.raises(IntegrityError, match="refused"):
        end(runs, run_id)
    assert runs.stored(run_id) == before
    assert runs.retry_of(run_id) == retry
    assert runs.actions(run_id) == actions
    assert Run.objects.count() == 1 + (retry is not None)
