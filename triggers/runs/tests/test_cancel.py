"""cancel: a user ends a queued run, and asks the worker of a held one."""

from datetime import timedelta
from uuid import uuid4

import pytest

from pipedai.api.errors import NotFound
from pipedai.events import SYSTEM
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import NOON, Runs
from triggers.models import Trigger
from triggers.runs.handout import hand_out_runs
from triggers.runs.lifecycle import Refused


def test_a_queued_run_is_canceled_at_once(runs: Runs) -> None:
    run_id = runs.queue()
    runs.wait(seconds=5)
    answer = runs.cancel(run_id)
    assert (answer["status"], answer["fault_class"]) == ("canceled", "none")
    run = runs.stored(run_id)
    assert run["ended_by"] == "user"
    assert run["ended_at"] == run["cancel_requested_at"] == NOON + timedelta(seconds=5)
    assert (run["claimed_at"], run["started_at"]) == (None, None)
    assert runs.actions(run_id) == ["run.created", "run.canceled"]
    assert len(runs.deliveries(run_id)) == 1


def test_a_canceled_run_is_not_handed_out(runs: Runs) -> None:
    runs.cancel(runs.queue())
    worker_id = runs.cast.worker.worker_id
    assert (
        hand_out_runs(worker_id=worker_id, capacity=9, approved=True, actor=SYSTEM, now=runs.now)
        == []
    )


@cases("held", ["claimed", "running"], undone=True)
def test_the_worker_of_a_held_run_is_only_asked(runs: Runs, held: str) -> None:
    run_id = getattr(runs, held)()
    before = runs.stored(run_id)
    runs.wait(seconds=5)
    answer = runs.cancel(run_id)
    assert (answer["status"], answer["cancel_requested_at"]) == (held, runs.now)
    assert runs.stored(run_id) == {**before, "cancel_requested_at": runs.now}
    assert runs.heartbeat(run_id)["cancel_requested_at"] == runs.now
    assert runs.deliveries(run_id) == []


def test_asking_again_changes_nothing(runs: Runs) -> None:
    run_id = runs.running()
    first = runs.cancel(run_id)
    before = runs.stored(run_id)
    runs.wait(seconds=5)
    assert runs.cancel(run_id)["cancel_requested_at"] == first["cancel_requested_at"]
    assert runs.stored(run_id) == before
    assert runs.actions(run_id).count("run.cancel-requested") == 1


def test_the_worker_acknowledges(runs: Runs) -> None:
    run_id = runs.running()
    runs.cancel(run_id)
    runs.wait(seconds=5)
    run = runs.complete(run_id, "canceled", shortMessage="Stopped.")
    assert (run["status"], run["fault_class"], run["short_message"]) == (
        "canceled",
        "none",
        "Stopped.",
    )
    acknowledged = runs.audited(run_id)[-1]
    assert (acknowledged.action, acknowledged.actor_type) == ("run.canceled", "worker")


def test_a_worker_that_was_faster_may_say_so(runs: Runs) -> None:
    run_id = runs.running()
    runs.cancel(run_id)
    run = runs.complete(run_id, "succeeded")
    assert run["status"] == "succeeded"
    assert run["cancel_requested_at"] is not None
    assert runs.actions(run_id)[-1] == "run.completed"


def test_a_claimed_run_that_was_to_be_canceled_may_still_be_started(runs: Runs) -> None:
    run_id = runs.claimed()
    runs.cancel(run_id)
    assert runs.start(run_id)["cancel_requested_at"] == NOON


def test_a_waiting_retry_can_be_canceled(runs: Runs) -> None:
    run_id = runs.lost()
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.cancel(retry["id"])
    assert runs.stored(retry["id"])["status"] == "canceled"
    assert len(runs.deliveries(retry["id"])) == 1


def test_a_run_that_waits_for_a_worker_can_be_canceled(runs: Runs) -> None:
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(worker=None)
    retry = runs.retry_of(runs.lost(run_id))
    assert retry is not None
    assert retry["worker_id"] is None
    assert runs.cancel(retry["id"])["status"] == "canceled"


def test_a_run_of_a_disabled_trigger_can_be_canceled(runs: Runs) -> None:
    run_id = runs.queue()
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False)
    assert runs.cancel(run_id)["status"] == "canceled"


def test_a_run_that_has_ended_can_not_be_canceled(runs: Runs) -> None:
    run_id = runs.ended("failed")
    with pytest.raises(Refused, match="The run is failed already") as refusal:
        runs.cancel(run_id)
    assert refusal.value.extra == {"status": "failed"}


def test_there_must_be_such_a_run(runs: Runs) -> None:
    with pytest.raises(NotFound):
        runs.cancel(uuid4())


# --- Over HTTP


def test_a_cancel_answers_with_the_run(cast: Cast, runs: Runs) -> None:
    client = cast.client(cast.operator)
    queued = client.post(f"/api/v1/runs/{runs.queue()}/cancel")
    assert queued.status_code == 200
    assert (queued.json()["status"], queued.json()["cancelRequested"]) == ("canceled", True)
    held = client.post(f"/api/v1/runs/{runs.running()}/cancel")
    assert held.status_code == 200
    assert (held.json()["status"], held.json()["cancelRequested"]) == ("running", True)


def test_a_cancel_of_an_ended_run_names_its_state(cast: Cast, runs: Runs) -> None:
    answer = cast.key_client().post(f"/api/v1/runs/{runs.ended()}/cancel")
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "The run is succeeded already.",
        "code": "run_state",
        "status": "succeeded",
    }


def test_a_cancel_is_audited_as_the_users(cast: Cast, runs: Runs) -> None:
    run_id = runs.running()
    cast.client(cast.operator).post(f"/api/v1/runs/{run_id}/cancel")
    entry = runs.audited(run_id)[-1]
    assert (entry.action, entry.actor_type, entry.actor_id) == (
        "run.cancel-requested",
        "user",
        cast.operator.id,
    )
