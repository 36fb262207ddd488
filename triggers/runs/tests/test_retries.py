"""Retries: a run that failed because of infrastructure is tried again."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pipedai.sql import Row, execute, fetch_all
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import NOON, WEBHOOK_URL, Runs
from triggers.models import Run, Trigger, TriggerRevision
from triggers.runs import lifecycle
from triggers.runs.queries import run_in_full
from triggers.states import Source


def _failed(runs: Runs, run_id: UUID | None = None, **report: Any) -> UUID:
    """Lets a run (a new one, unless it is given) fail because of infrastructure, and returns its id."""
    run_id = run_id or runs.running()
    runs.complete(run_id, "failed", faultClass="infra", **report)
    return run_id


def _retry(runs: Runs, run_id: UUID) -> Row:
    retry = runs.retry_of(run_id)
    assert retry is not None, "there is no retry"
    return retry


# --- Which runs get a retry


@cases("status", ["failed", "timed_out"], undone=True)
def test_what_infrastructure_broke_is_retried(runs: Runs, status: str) -> None:
    run_id = runs.ended(status, faultClass="infra")
    assert _retry(runs, run_id)["status"] == "queued"


def test_a_run_that_never_started_is_retried_too(runs: Runs) -> None:
    run_id = runs.claimed()
    assert _retry(runs, _failed(runs, run_id))["attempt"] == 2


@cases(
    "report",
    [
        {"status": "succeeded"},
        {"status": "succeeded", "faultClass": "infra"},
        {"status": "failed"},
        {"status": "failed", "faultClass": "client"},
        {"status": "failed", "faultClass": "none"},
        {"status": "failed", "retryAfterSeconds": 5},
        {"status": "timed_out"},
    ],
    undone=True,
)
def test_nothing_else_is(runs: Runs, report: dict) -> None:
    assert runs.retry_of(runs.ended(**report)) is None


def test_a_run_of_a_disabled_trigger_is_not(runs: Runs) -> None:
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False)
    assert runs.retry_of(_failed(runs, run_id)) is None
    assert runs.actions(run_id)[-1] == "run.completed"


def test_a_run_of_a_deleted_trigger_is_not(runs: Runs) -> None:
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(deleted_at=NOON)
    assert runs.retry_of(_failed(runs, run_id)) is None


def test_a_run_whose_cancel_was_requested_is_not(runs: Runs) -> None:
    run_id = runs.running()
    runs.cancel(run_id)
    assert runs.retry_of(_failed(runs, run_id)) is None


def test_without_retries_there_is_none(cast: Cast) -> None:
    runs = Runs.of(cast, max_retries=0)
    assert runs.retry_of(_failed(runs)) is None
    assert runs.retry_of(runs.lost()) is None


def test_after_the_last_attempt_there_is_none(cast: Cast) -> None:
    runs = Runs.of(cast, max_retries=2)
    first = _failed(runs)
    second = _failed(runs, runs.claimed_retry_of(first))
    third = _failed(runs, runs.claimed_retry_of(second))
    assert [runs.stored(run_id)["attempt"] for run_id in (first, second, third)] == [1, 2, 3]
    assert runs.retry_of(third) is None
    assert Run.objects.count() == 3


# --- When a retry comes due


@pytest.mark.parametrize(
    "break_it",
    [pytest.param(_failed, id="reported"), pytest.param(lambda r, i: r.lost(i), id="lost")],
)
def test_each_attempt_waits_longer_up_to_ten_minutes(cast: Cast, break_it) -> None:
    runs = Runs.of(cast, max_retries=10)
    run_id, waits = runs.running(), []
    for _ in range(10):
        break_it(runs, run_id)
        waits.append((_retry(runs, run_id)["available_at"] - runs.now).total_seconds())
        run_id = runs.claimed_retry_of(run_id)
    assert waits == [30, 120, 600, 600, 600, 600, 600, 600, 600, 600]


@cases(
    ("said", "seconds"),
    [
        (3600, 3600),  # later than the back-off
        (31, 31),  # a little later
        (29, 30),  # earlier
        (0, 30),  # none
        (-5, 30),  # negative
        (100.01, 101),  # rounded up
        (86_400, 86_400),  # a day
        (86_400.5, 86_400),  # more than a day
        (10**300, 86_400),  # absurd
        (None, 30),  # null
        ("3600", 30),  # a string
        ("soon", 30),  # a word
        (True, 30),  # true
        ([3600], 30),  # a list
        ({"seconds": 3600}, 30),  # an object
    ],
    undone=True,
)
def test_retry_after_seconds_counts_if_later_and_is_never_refused(
    cast: Cast, runs: Runs, said: object, seconds: int
) -> None:
    run_id = runs.running()
    answer = WorkerCalls(cast.worker).complete(
        run_id, status="failed", faultClass="infra", retryAfterSeconds=said
    )
    assert answer.status_code == 200
    ended = runs.stored(run_id)["ended_at"]
    assert _retry(runs, run_id)["available_at"] == ended + timedelta(seconds=seconds)


def test_a_retry_is_queued_when_the_run_ended_and_due_later(runs: Runs) -> None:
    run_id = runs.running()
    runs.wait(seconds=77)
    retry = _retry(runs, _failed(runs, run_id))
    assert retry["queued_at"] == runs.now
    assert retry["available_at"] == runs.now + timedelta(seconds=30)


# --- What a retry contains


def test_a_retry_is_a_run_of_its_own(runs: Runs) -> None:
    run_id = _failed(runs, exitCode=7, shortMessage="Broken.", costUsd=1, inputTokens=5)
    original, retry = runs.stored(run_id), _retry(runs, run_id)
    assert retry["source"] == "retry"
    assert retry["attempt"] == 2
    assert retry["retry_of_id"] == run_id
    copied = ("environment_id", "trigger_id", "revision_id", "worker_id", "max_retries")
    assert [retry[name] for name in copied] == [original[name] for name in copied]
    blank = (
        "claimed_at", "started_at", "ended_at", "ended_by", "slot", "claim_id", "lease_expires_at",
        "deadline_at", "cancel_requested_at", "exit_code", "fault_class", "short_message",
        "input_tokens", "cost_usd", "session_id", "error_message", "late_result",
    )  # fmt: skip
    assert {name: retry[name] for name in blank} == dict.fromkeys(blank)


def test_the_retry_of_a_retry_points_at_the_run_before_it(runs: Runs) -> None:
    first = _failed(runs)
    second = _failed(runs, runs.claimed_retry_of(first))
    third = _retry(runs, second)
    assert (third["retry_of_id"], third["attempt"]) == (second, 3)


@cases("payload", [{"b": 1, "a": [1.0, 1e3, None, "é\u2028"]}, [], 0, False, "text"], undone=True)
def test_the_payload_is_copied_as_it_came(runs: Runs, payload: object) -> None:
    run_id = _failed(runs, runs.running(payload=payload))
    assert _retry(runs, run_id)["payload"] == payload
    texts = fetch_all("SELECT payload::text AS text FROM run_text WHERE payload IS NOT NULL", {})
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_the_limits_prompt_and_model_are_those_of_the_original(cast: Cast) -> None:
    runs = Runs.of(cast, max_retries=1, timeout_seconds=10, model="claude-haiku")
    run_id = runs.running()
    _rewrite(runs, prompt="Another prompt.", model="claude-opus")
    Trigger.objects.filter(id=runs.trigger_id).update(max_retries=9, timeout_seconds=999)
    _failed(runs, run_id, model="claude-haiku-4-5-20251001")
    original, retry = runs.stored(run_id), _retry(runs, run_id)
    assert retry["revision_id"] == original["revision_id"]
    assert (retry["max_retries"], retry["timeout_seconds"]) == (1, 10)
    assert retry["model"] == "claude-haiku"
    assert runs.retry_of(_failed(runs, runs.claimed_retry_of(run_id))) is None


def test_the_worker_is_the_triggers_present_one(runs: Runs) -> None:
    run_id = runs.running()
    other = runs.cast.register("host-2").worker_id
    Trigger.objects.filter(id=runs.trigger_id).update(worker=other)
    assert _retry(runs, _failed(runs, run_id))["worker_id"] == other


def test_without_a_worker_the_retry_waits_for_one(runs: Runs) -> None:
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(worker=None)
    retry = _retry(runs, _failed(runs, run_id))
    assert (retry["status"], retry["worker_id"]) == ("queued", None)


def test_the_tick_it_was_scheduled_for_goes_with_it(runs: Runs) -> None:
    run_id = runs.running()
    execute(
        "UPDATE run SET source = %(source)s, scheduled_for = %(tick)s WHERE id = %(id)s",
        {"source": Source.SCHEDULE.value, "tick": NOON, "id": run_id},
    )
    assert _retry(runs, _failed(runs, run_id))["scheduled_for"] == NOON


def test_a_retry_has_its_own_webhook_when_it_ends(runs: Runs) -> None:
    run_id = _failed(runs)
    retry_id = runs.claimed_retry_of(run_id)
    assert runs.deliveries(retry_id) == []
    runs.complete(retry_id)
    assert [delivery["url"] for delivery in runs.deliveries(retry_id)] == [WEBHOOK_URL]


def test_a_retry_is_audited_as_the_systems_about_the_new_run(runs: Runs) -> None:
    run_id = _failed(runs)
    retry = _retry(runs, run_id)
    (entry,) = runs.audited(retry["id"])
    assert (entry.action, entry.actor_type, entry.actor_id) == ("run.retried", "system", None)
    assert (entry.environment_id, entry.target_type) == (runs.cast.environment.id, "run")
    assert entry.metadata == {
        "retryOf": str(run_id),
        "attempt": 2,
        "availableAt": "2026-05-04T12:00:30.000Z",
    }


def test_a_run_with_two_ends_has_one_retry(runs: Runs) -> None:
    run_id = runs.lost()
    _failed(runs, run_id)
    assert Run.objects.filter(retry_of_id=run_id).count() == 1
    assert lifecycle.expire_runs(now=runs.wait(days=1)) == 0


def _rewrite(runs: Runs, *, prompt: str, model: str) -> None:
    """Gives the trigger another prompt and model."""
    revision = TriggerRevision.objects.create(
        environment_id=runs.cast.environment.id,
        trigger_id=runs.trigger_id,
        prompt=prompt,
        model=model,
    )
    Trigger.objects.filter(id=runs.trigger_id).update(revision_id=revision.id)


def test_an_ended_run_tells_whether_a_retry_follows(runs: Runs) -> None:
    unfinished = runs.queue()
    assert runs.claim(unfinished)["will_retry"] is None
    assert run_in_full(unfinished)["will_retry"] is None
    runs.complete(unfinished)
    ends: list[tuple[str, dict[str, Any], bool]] = [
        ("succeeded", {}, False),
        ("failed", {"faultClass": "client"}, False),
        ("failed", {"faultClass": "infra"}, True),
    ]
    for status, report, expected in ends:
        run_id = runs.running()
        assert runs.complete(run_id, status, **report)["will_retry"] is expected
        assert runs.complete(run_id, status)["will_retry"] is expected
        assert run_in_full(run_id)["will_retry"] is expected
        assert Run.objects.get(id=run_id).retried is expected


@cases(
    ("status", "report", "expected"),
    [("succeeded", {}, False), ("failed", {"faultClass": "infra"}, True)],
    undone=True,
)
def test_a_retry_that_a_late_result_canceled_does_not_follow(
    runs: Runs, status: str, report: dict, expected: bool
) -> None:
    run_id = runs.lost()
    assert run_in_full(run_id)["will_retry"]
    assert runs.complete(run_id, status, **report)["will_retry"] is expected
    assert run_in_full(run_id)["will_retry"] is expected
    assert Run.objects.get(id=run_id).retried is expected
