"""PATCH /environments/:id { paused } and what follows: nothing is queued, handed out or claimed."""

from datetime import timedelta
from typing import Any

import pytest

from audit.models import AuditEntry
from pipedai.api.errors import ApiError, Conflict
from testing.processes.racing import ROUNDS, at_once
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.runs import NOON, Runs, allow
from triggers.models import Run, Tick, Trigger
from triggers.schedules.firing import fire_due_ticks
from workspaces.services import update_environment


def pause(cast: Cast, **values: Any) -> None:
    update_environment(
        environment_id=cast.environment.id,
        values={"paused": True, **values},
        actor=TEST_ACTOR,
    )


def resume(cast: Cast) -> None:
    update_environment(
        environment_id=cast.environment.id, values={"paused": False}, actor=TEST_ACTOR
    )


def patch(cast: Cast, body: Any) -> Any:
    return cast.client(cast.admin).patch(f"/api/v1/environments/{cast.environment.id}", body)


def test_an_admin_pauses_says_why_and_resumes(cast: Cast) -> None:
    paused = patch(cast, {"paused": True, "pauseReason": "moving"}).json()
    assert (paused["paused"], paused["pauseReason"]) == (True, "moving")
    assert paused["pausedAt"] is not None
    entry = AuditEntry.objects.get(action="environment.updated")
    assert entry.metadata == {"paused": [False, True], "pauseReason": [None, "moving"]}
    resumed = patch(cast, {"paused": False}).json()
    assert (resumed["paused"], resumed["pausedAt"], resumed["pauseReason"]) == (False, None, None)


def test_what_is_as_it_was_changes_nothing(cast: Cast) -> None:
    for body in ({}, {"paused": False}, {"name": cast.environment.name}):
        assert patch(cast, body).status_code == 200
    pause(cast)
    since = patch(cast, {}).json()["pausedAt"]
    assert patch(cast, {"paused": True}).json()["pausedAt"] == since
    assert AuditEntry.objects.filter(action="environment.updated").count() == 1


def test_an_operator_may_not(cast: Cast) -> None:
    url = f"/api/v1/environments/{cast.environment.id}"
    assert cast.client(cast.operator).patch(url, {"paused": True}).status_code == 403


@cases(
    ("body", "field"),
    [
        ({"paused": "perhaps"}, "paused"),
        ({"paused": None}, "paused"),
        ({"paused": True, "pauseReason": "x" * 501}, "pauseReason"),
        ({"pauseReason": "of nothing"}, "pauseReason"),
        ({"cancelHeld": True}, "cancelHeld"),
        ({"paused": False, "cancelHeld": True}, "cancelHeld"),
        ({"stopped": True}, "stopped"),
    ],
    undone=True,
)
def test_a_bad_body_is_refused(cast: Cast, body: Any, field: str) -> None:
    answer = patch(cast, body)
    assert answer.status_code == 400
    assert field in answer.json()["details"]["fieldErrors"]


def test_a_paused_environment_hands_out_and_claims_nothing(cast: Cast) -> None:
    runs = Runs.of(cast)
    run_id = runs.queue()
    pause(cast)
    assert runs.polled() == []
    with pytest.raises(Conflict) as refused:
        runs.claim(run_id)
    assert refused.value.code == "environment_paused"
    with pytest.raises(Conflict) as refused:
        runs.queue()
    assert refused.value.code == "environment_paused"
    resume(cast)
    assert runs.polled() == [run_id]


def test_held_runs_end_in_peace_and_their_retries_wait(cast: Cast) -> None:
    runs = Runs.of(cast)
    run_id = runs.claimed()
    pause(cast)
    runs.start(run_id)
    runs.heartbeat(run_id)
    assert runs.stored(run_id)["cancel_requested_at"] is None
    runs.complete(run_id, "failed", faultClass="infra")
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.now = retry["available_at"]
    assert runs.polled() == []


def test_or_are_asked_to_cancel(cast: Cast) -> None:
    runs = Runs.of(cast)
    allow(cast.worker.worker_id, 2)
    claimed, running, queued = runs.claimed(), runs.running(), runs.queue()
    pause(cast, cancel_held=True)
    for run_id in (claimed, running):
        assert runs.stored(run_id)["cancel_requested_at"] is not None
        assert runs.actions(run_id)[-1] == "run.cancel-requested"
    assert runs.stored(queued)["status"] == "queued"


def test_another_environment_goes_on(cast: Cast) -> None:
    runs = Runs.of(cast)
    update_environment(
        environment_id=cast.strange_environment.id, values={"paused": True}, actor=TEST_ACTOR
    )
    run_id = runs.queue()
    assert runs.polled() == [run_id]


def test_due_times_of_a_stretch_are_one_row_and_one_audit_row(cast: Cast) -> None:
    runs = Runs.of(cast, schedule="* * * * *")
    Trigger.objects.filter(id=runs.trigger_id).update(next_run_at=NOON)
    pause(cast)
    for minute in range(3):
        fire_due_ticks(now=NOON + timedelta(minutes=minute, seconds=1))
    tick = Tick.objects.get(trigger_id=runs.trigger_id)
    assert (tick.decision, tick.missed_count) == ("skipped_paused", 3)
    assert tick.last_tick_at == NOON + timedelta(minutes=2)
    assert AuditEntry.objects.filter(action="run.skipped", target_id=runs.trigger_id).count() == 1
    resume(cast)
    fire_due_ticks(now=NOON + timedelta(minutes=3, seconds=1))
    assert Run.objects.filter(trigger_id=runs.trigger_id).count() == 1
    pause(cast)
    fire_due_ticks(now=NOON + timedelta(minutes=4, seconds=1))
    assert Tick.objects.filter(trigger_id=runs.trigger_id).count() == 3


@pytest.mark.parametrize("round_", ROUNDS)
def test_no_claim_ends_after_the_pause(committed_runs: Runs, round_: int) -> None:
    runs = committed_runs
    allow(runs.cast.worker.worker_id, 20)
    queued = [runs.queue() for _ in range(12)]

    def claim(run_id: Any) -> Any:
        return lambda: runs.claim(run_id)

    held_at_pause: list[int] = []

    def paused() -> None:
        pause(runs.cast)
        held_at_pause.append(Run.objects.filter(slot__isnull=False).count())

    answers = at_once(*(claim(run_id) for run_id in queued), paused)
    claimed = sum(not isinstance(answer, ApiError) for answer in answers[:-1])
    assert [claimed] == held_at_pause
    refused = [answer for answer in answers if isinstance(answer, ApiError)]
    assert {answer.code for answer in refused} <= {"environment_paused"}
