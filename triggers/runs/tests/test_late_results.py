"""Late results: a worker reports on a run that the server has already ended."""

from datetime import timedelta

import pytest

from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import NOON, Runs
from triggers.models import Trigger
from triggers.runs.lifecycle import Refused


@cases("verdict", ["lost", "overdue"], undone=True)
def test_the_reported_outcome_replaces_the_verdict(runs: Runs, verdict: str) -> None:
    run_id = getattr(runs, verdict)()
    runs.wait(seconds=20)
    answer = runs.complete(
        run_id, "succeeded", exitCode=0, shortMessage="Done.", costUsd="0.5", outputTokens=7
    )
    run = runs.stored(run_id)
    assert (run["status"], run["fault_class"], run["ended_by"]) == ("succeeded", "none", "worker")
    assert (run["exit_code"], run["short_message"], run["output_tokens"]) == (0, "Done.", 7)
    assert run["ended_at"] == runs.now
    assert answer["status"] == "succeeded"


def test_the_verdicts_own_message_goes(runs: Runs) -> None:
    run_id = runs.lost()
    assert "worker lost" in runs.stored(run_id)["error_message"]
    answer = runs.complete(run_id, "succeeded")
    assert answer["error_message"] is None
    assert runs.stored(run_id)["error_message"] is None


def test_the_reported_message_takes_its_place(runs: Runs) -> None:
    run_id = runs.lost()
    runs.complete(run_id, "failed", errorMessage="no such table")
    assert runs.stored(run_id)["error_message"] == "no such table"


def test_when_it_was_claimed_and_started_stays(runs: Runs) -> None:
    run_id = runs.lost()
    runs.complete(run_id)
    run = runs.stored(run_id)
    assert (run["claimed_at"], run["started_at"]) == (NOON, NOON)


@pytest.mark.parametrize(
    "report",
    [
        pytest.param({"status": "succeeded"}, id="succeeded"),
        pytest.param({"status": "failed"}, id="failed, client"),
        pytest.param({"status": "timed_out"}, id="timed_out, client"),
    ],
)
def test_a_waiting_retry_is_canceled_without_a_webhook(runs: Runs, report: dict) -> None:
    run_id = runs.lost()
    runs.wait(seconds=20)
    runs.complete(run_id, **report)
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert (retry["status"], retry["fault_class"]) == ("canceled", "none")
    assert (retry["ended_by"], retry["ended_at"]) == ("late_result", runs.now)
    assert retry["cancel_requested_at"] is None
    assert runs.deliveries(retry["id"]) == []
    assert runs.actions(retry["id"]) == ["run.retried"]


def test_a_retry_that_is_due_but_not_claimed_is_still_waiting(runs: Runs) -> None:
    run_id = runs.lost()
    runs.wait(hours=1)
    runs.complete(run_id)
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert retry["status"] == "canceled"


@cases("status", ["failed", "timed_out"], undone=True)
def test_the_waiting_retry_stands_if_the_outcome_calls_for_one(runs: Runs, status: str) -> None:
    run_id = runs.lost()
    before = runs.retry_of(run_id)
    runs.wait(seconds=20)
    runs.complete(run_id, status, faultClass="infra")
    assert runs.stored(run_id)["ended_by"] == "worker"
    assert runs.retry_of(run_id) == before


@pytest.mark.parametrize(
    ("seconds", "due"),
    [
        pytest.param(3600, timedelta(seconds=20 + 3600), id="later"),
        pytest.param(5, timedelta(seconds=30), id="earlier"),
        pytest.param(0, timedelta(seconds=30), id="at once"),
    ],
)
def test_the_retry_that_stands_is_put_off_if_the_worker_says_so(
    runs: Runs, seconds: int, due: timedelta
) -> None:
    run_id = runs.lost()
    lost_at = runs.now
    runs.wait(seconds=20)
    runs.complete(run_id, "failed", faultClass="infra", retryAfterSeconds=seconds)
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert retry["available_at"] == lost_at + due


def test_an_overdue_run_that_was_infrastructures_fault_is_retried_after_all(runs: Runs) -> None:
    run_id = runs.overdue()
    assert runs.retry_of(run_id) is None
    runs.wait(seconds=20)
    runs.complete(run_id, "failed", faultClass="infra")
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert (retry["status"], retry["attempt"]) == ("queued", 2)
    assert retry["available_at"] == runs.now + timedelta(seconds=30)


def test_a_retry_that_a_user_canceled_does_not_come_back(runs: Runs) -> None:
    run_id = runs.lost()
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.cancel(retry["id"])
    before = runs.retry_of(run_id)
    runs.complete(run_id, "failed", faultClass="infra")
    assert runs.stored(run_id)["ended_by"] == "worker"
    assert runs.retry_of(run_id) == before


def test_it_is_audited_as_completed_late(runs: Runs) -> None:
    run_id = runs.lost()
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.complete(run_id)
    entry = runs.audited(run_id)[-1]
    assert (entry.action, entry.actor_type) == ("run.completed", "worker")
    assert entry.actor_id == runs.cast.worker.worker_id
    assert entry.metadata == {
        "triggerId": str(runs.trigger_id),
        "status": "succeeded",
        "faultClass": "none",
        "late": True,
        "canceledRetry": str(retry["id"]),
    }


def test_it_queues_a_delivery_of_its_own(runs: Runs) -> None:
    run_id = runs.lost()
    runs.complete(run_id)
    verdict, report = runs.deliveries(run_id)
    assert '"status":"failed"' in verdict["body"]
    assert '"status":"succeeded"' in report["body"]
    assert verdict["message_id"] != report["message_id"]


def test_once_it_is_taken_its_run_is_the_workers_word(runs: Runs) -> None:
    run_id = runs.lost()
    runs.complete(run_id, "failed", shortMessage="First.")
    before = runs.stored(run_id)
    runs.wait(seconds=1)
    assert runs.complete(run_id, "failed", shortMessage="Second.")["short_message"] == "First."
    with pytest.raises(Refused, match="has ended as failed"):
        runs.complete(run_id, "succeeded")
    assert runs.stored(run_id) == before
    assert len(runs.deliveries(run_id)) == 2


def test_a_run_of_a_trigger_that_was_disabled_since_takes_it(runs: Runs) -> None:
    run_id = runs.lost()
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False)
    runs.complete(run_id, "failed", faultClass="infra")
    assert runs.stored(run_id)["ended_by"] == "worker"


def test_canceled_is_taken_only_where_a_cancel_was_requested(runs: Runs) -> None:
    run_id = runs.lost()
    with pytest.raises(Refused, match="No cancel was requested"):
        runs.complete(run_id, "canceled")
    asked = runs.running()
    runs.cancel(asked)
    runs.complete(runs.lost(asked), "canceled", shortMessage="Stopped.")
    run = runs.stored(asked)
    assert (run["status"], run["ended_by"], run["short_message"]) == (
        "canceled",
        "worker",
        "Stopped.",
    )


# --- Too late


def test_once_the_retry_is_claimed_the_report_is_only_kept(runs: Runs) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    before, retry_before = runs.stored(run_id), runs.retry_of(run_id)
    runs.wait(seconds=5.25)
    with pytest.raises(Refused, match="its retry has been claimed") as refusal:
        runs.complete(run_id, "succeeded", exitCode=0, costUsd="0.120", shortMessage="Done. é")
    assert refusal.value.extra == {"status": "failed"}
    kept = {
        "receivedAt": "2026-05-04T12:03:35.250Z",
        "status": "succeeded",
        "exitCode": 0,
        "costUsd": "0.12",
        "shortMessage": "Done. é",
    }
    assert runs.stored(run_id) == {**before, "late_result": kept}
    assert runs.retry_of(run_id) == retry_before
    assert len(runs.deliveries(run_id)) == 1


@cases("end", ["succeeded", "failed"], undone=True)
def test_so_it_is_once_the_retry_has_ended(runs: Runs, end: str) -> None:
    run_id = runs.lost()
    runs.complete(runs.claimed_retry_of(run_id), end)
    with pytest.raises(Refused, match="its retry has been claimed"):
        runs.complete(run_id, "succeeded")
    assert runs.stored(run_id)["late_result"]["status"] == "succeeded"


def test_so_it_is_once_the_retry_was_lost_itself(runs: Runs) -> None:
    run_id = runs.lost()
    runs.lost(runs.claimed_retry_of(run_id))
    with pytest.raises(Refused, match="its retry has been claimed"):
        runs.complete(run_id, "succeeded")


def test_the_first_such_report_is_kept_and_audited_once(runs: Runs) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    for status in ("succeeded", "failed", "succeeded"):
        with pytest.raises(Refused):
            runs.complete(run_id, status)
    assert runs.stored(run_id)["late_result"]["status"] == "succeeded"
    assert runs.actions(run_id).count("run.late-result") == 1
    entry = runs.audited(run_id)[-1]
    assert (entry.actor_type, entry.actor_id) == ("worker", runs.cast.worker.worker_id)


def test_the_error_of_a_run_stays_beside_its_late_result(runs: Runs) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    with pytest.raises(Refused):
        runs.complete(run_id, "failed", errorMessage="Mine.")
    run = runs.stored(run_id)
    assert run["error_message"] == "worker lost: no heartbeat for 180 s"
    assert run["late_result"]["errorMessage"] == "Mine."


def test_over_http_a_report_that_comes_too_late_is_a_409_and_shown_with_the_run(
    cast: Cast, runs: Runs
) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    answer = WorkerCalls(cast.worker).complete(
        run_id, status="failed", faultClass="infra", retryAfterSeconds=2.5, unknown="x"
    )
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "The run was given up and its retry has been claimed.",
        "code": "retry_claimed",
        "status": "failed",
    }
    shown = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
    kept = shown["lateResult"]
    assert kept.pop("receivedAt").endswith("Z")
    assert kept == {"status": "failed", "faultClass": "infra", "retryAfterSeconds": 3}
