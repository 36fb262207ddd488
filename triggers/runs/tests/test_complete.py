"""start, heartbeat and complete: a worker executes a run and reports its end."""

from datetime import timedelta
from uuid import UUID

import pytest

from testing.probes.shapes import A_TIME, invalid
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import NOON, Runs
from triggers.models import Run
from triggers.runs.lifecycle import Refused

REPORT = {
    "exitCode": 3,
    "shortMessage": "Two of three reports failed.",
    "errorMessage": "report 2: no such table\nreport 3: no such table",
    "faultClass": "client",
    "inputTokens": 1_000_000_000_000,
    "outputTokens": 2,
    "cacheReadTokens": 3,
    "cacheCreationTokens": 4,
    "costUsd": "0.012",
    "numTurns": 5,
    "sessionId": "session-1",
    "model": "claude-opus-4-1",
}


def test_a_start_renews_the_lease_and_counts_the_deadline_anew(runs: Runs) -> None:
    run_id = runs.claimed()
    runs.wait(seconds=100)
    runs.start(run_id)
    run = runs.stored(run_id)
    assert run["started_at"] == NOON + timedelta(seconds=100)
    assert run["lease_expires_at"] == NOON + timedelta(seconds=100 + 180)
    assert run["deadline_at"] == NOON + timedelta(seconds=100 + 1800 + 60)


def test_a_repeated_start_does_not_put_the_deadline_off(runs: Runs) -> None:
    run_id = runs.running()
    before = runs.stored(run_id)
    runs.wait(seconds=100)
    assert runs.start(run_id)["started_at"] == NOON
    assert runs.stored(run_id) == before


def test_a_heartbeat_renews_the_lease_and_nothing_else(runs: Runs) -> None:
    run_id = runs.running()
    before = runs.stored(run_id)
    runs.wait(seconds=100)
    beat = runs.heartbeat(run_id)
    lease = NOON + timedelta(seconds=100 + 180)
    assert beat == {
        "status": "running",
        "cancel_requested_at": None,
        "lease_expires_at": lease,
        "record_events": "failures",
    }
    assert runs.stored(run_id) == {**before, "lease_expires_at": lease}


def test_a_heartbeat_is_not_audited(runs: Runs) -> None:
    run_id = runs.running()
    runs.heartbeat(run_id)
    assert runs.actions(run_id) == ["run.created", "run.claimed", "run.started"]


def test_a_heartbeat_in_time_for_the_scheduler_saves_a_lease_that_has_run_out(runs: Runs) -> None:
    run_id = runs.running()
    runs.wait(seconds=181)
    runs.heartbeat(run_id)
    assert runs.expire() == 0


def test_a_complete_ends_the_run_and_frees_what_it_held(runs: Runs) -> None:
    run_id = runs.running()
    runs.wait(seconds=12.3456)
    runs.complete(run_id)
    run = runs.stored(run_id)
    assert run["status"] == "succeeded"
    assert run["ended_at"] == NOON + timedelta(seconds=12.3456)
    assert run["ended_by"] == "worker"
    assert (run["slot"], run["lease_expires_at"], run["deadline_at"]) == (None, None, None)


def test_a_complete_straight_from_claimed_is_taken(runs: Runs) -> None:
    run_id = runs.claimed()
    run = runs.complete(run_id, "failed", faultClass="infra", shortMessage="Could not launch.")
    assert (run["status"], run["started_at"]) == ("failed", None)


def test_a_complete_is_audited_as_the_workers(runs: Runs) -> None:
    entry = runs.audited(runs.ended("failed"))[-1]
    assert entry.action == "run.completed"
    assert (entry.actor_type, entry.actor_id) == ("worker", runs.cast.worker.worker_id)
    assert entry.metadata == {
        "triggerId": str(runs.trigger_id),
        "status": "failed",
        "faultClass": "client",
    }


@cases(
    ("status", "reported", "settled"),
    [
        ("succeeded", None, "none"),
        ("succeeded", "none", "none"),
        ("succeeded", "client", "none"),
        ("succeeded", "infra", "none"),
        ("failed", None, "client"),
        ("failed", "none", "client"),
        ("failed", "client", "client"),
        ("failed", "infra", "infra"),
        ("timed_out", None, "client"),
        ("timed_out", "none", "client"),
        ("timed_out", "client", "client"),
        ("timed_out", "infra", "infra"),
        ("canceled", None, "none"),
        ("canceled", "infra", "none"),
    ],
    undone=True,
)
def test_whose_fault_it_was_is_settled(
    runs: Runs, status: str, reported: str | None, settled: str
) -> None:
    run_id = runs.running()
    runs.cancel(run_id)  # so that the worker may report it as canceled
    assert runs.complete(run_id, status, faultClass=reported)["fault_class"] == settled


def test_canceled_is_refused_where_nobody_asked_for_it(runs: Runs) -> None:
    run_id = runs.running()
    with pytest.raises(Refused, match="No cancel was requested"):
        runs.complete(run_id, "canceled")
    assert runs.stored(run_id)["status"] == "running"


def test_a_repeat_changes_nothing_whatever_else_it_says(runs: Runs) -> None:
    run_id = runs.ended("failed", shortMessage="The first.", errorMessage="Long.", costUsd=1)
    before = runs.stored(run_id)
    runs.wait(seconds=1)
    answer = runs.complete(run_id, "failed", faultClass="infra", shortMessage="The second.")
    assert answer["short_message"] == "The first."
    assert answer["error_message"] == "Long."
    assert answer["fault_class"] == "client"
    assert runs.stored(run_id) == before
    assert runs.retry_of(run_id) is None


# --- Over HTTP


@pytest.fixture
def worker(cast: Cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


@pytest.fixture
def run_id(runs: Runs) -> UUID:
    return runs.running()


def test_all_that_is_reported_is_kept_and_shown(
    cast: Cast, worker: WorkerCalls, run_id: UUID
) -> None:
    answer = worker.complete(run_id, status="failed", **REPORT)
    assert answer.status_code == 200
    expected = {"status": "failed", **REPORT, "endedAt": A_TIME}
    assert answer.json() | expected == answer.json()
    shown = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
    assert shown | expected == shown


def test_the_status_alone_is_enough(worker: WorkerCalls, run_id: UUID) -> None:
    answer = worker.complete(run_id, status="succeeded")
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in REPORT} == {
        **dict.fromkeys(REPORT),
        "faultClass": "none",
    }


def test_null_is_as_good_as_absent(worker: WorkerCalls, run_id: UUID) -> None:
    answer = worker.complete(
        run_id, status="failed", retryAfterSeconds=None, **dict.fromkeys(REPORT)
    )
    assert answer.status_code == 200
    assert answer.json()["faultClass"] == "client"


def test_the_triggers_model_stays_unless_another_is_reported(cast: Cast) -> None:
    runs = Runs.of(cast, model="claude-haiku")
    assert runs.stored(runs.ended())["model"] == "claude-haiku"
    assert runs.stored(runs.ended(model="claude-opus"))["model"] == "claude-opus"


@cases(
    ("field", "column", "kept"),
    [
        ("shortMessage", "short_message", 500),
        ("errorMessage", "error_message", 8000),
        ("sessionId", "session_id", 255),
        ("model", "model", 200),
    ],
    undone=True,
)
def test_long_text_is_cut_and_never_refused(
    runs: Runs, worker: WorkerCalls, run_id: UUID, field: str, column: str, kept: int
) -> None:
    text = "🙂é" * 6000
    answer = worker.complete(run_id, status="failed", **{field: text})
    assert answer.status_code == 200
    assert answer.json()[field] == text[:kept]
    assert runs.stored(run_id)[column] == text[:kept]


@cases("field", ["shortMessage", "errorMessage", "sessionId", "model"], undone=True)
def test_characters_that_cannot_be_kept_are_replaced(
    worker: WorkerCalls, run_id: UUID, field: str
) -> None:
    answer = worker.complete(run_id, status="failed", **{field: "a\x00b\ud800c"})
    assert answer.status_code == 200
    assert answer.json()[field] == "a\ufffdb\ufffdc"


def test_text_is_kept_as_it_is_blank_lines_and_all(worker: WorkerCalls, run_id: UUID) -> None:
    answer = worker.complete(run_id, status="failed", shortMessage="", errorMessage="\n  two\n")
    assert (answer.json()["shortMessage"], answer.json()["errorMessage"]) == ("", "\n  two\n")


@cases(
    ("reported", "shown"),
    [
        ("0.012", "0.012"),
        (0.012, "0.012"),
        (0, "0"),
        ("0.0", "0"),
        (100, "100"),
        ("1.50", "1.5"),
        (1e-05, "0.00001"),
        ("12.3456785", "12.345678"),
        ("12.3456795", "12.34568"),
        ("0.0000001", "0"),
        ("99999999", "99999999"),
    ],
    undone=True,
)
def test_money_is_kept_to_the_sixth_place(
    worker: WorkerCalls, run_id: UUID, reported: object, shown: str
) -> None:
    answer = worker.complete(run_id, status="succeeded", costUsd=reported)
    assert answer.json()["costUsd"] == shown


def test_the_duration_is_from_start_to_end_in_whole_milliseconds(
    cast: Cast, runs: Runs, run_id: UUID
) -> None:
    runs.wait(seconds=61.2349)
    runs.complete(run_id)
    shown = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
    assert shown["durationMs"] == 61_234


def test_a_run_that_never_started_has_no_duration(runs: Runs, worker: WorkerCalls) -> None:
    run_id = runs.claimed()
    assert worker.complete(run_id, status="failed").json()["durationMs"] is None


@cases(
    ("field", "value"),
    [
        ("status", "queued"),
        ("status", "done"),
        ("status", None),
        ("status", 1),
        ("exitCode", "0"),
        ("exitCode", 1.5),
        ("shortMessage", 5),
        ("errorMessage", ["a"]),
        ("faultClass", "server"),
        ("outputTokens", "2"),
        ("cacheReadTokens", True),
        ("cacheCreationTokens", "1"),
        ("costUsd", "much"),
        ("sessionId", {}),
    ],
    undone=True,
)
def test_a_wrong_value_is_a_field_error(
    worker: WorkerCalls, run_id: UUID, field: str, value: object
) -> None:
    answer = worker.complete(run_id, **{"status": "failed", field: value})
    assert answer.status_code == 400
    errors = answer.json()["details"]["fieldErrors"]
    assert list(errors) == [field]
    assert answer.json() == invalid(errors)
    assert Run.objects.get(id=run_id).status == "running"


def test_without_a_status_nothing_is_reported(worker: WorkerCalls, run_id: UUID) -> None:
    answer = worker.complete(run_id, exitCode=0)
    assert answer.status_code == 400
    assert list(answer.json()["details"]["fieldErrors"]) == ["status"]


def test_a_worker_that_does_not_hold_the_run_is_told_so(worker: WorkerCalls, run_id: UUID) -> None:
    worker.complete(run_id, status="succeeded")
    answer = worker.heartbeat(run_id)
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "The run is succeeded: this worker does not hold it.",
        "code": "run_state",
        "status": "succeeded",
    }


def test_a_heartbeat_tells_of_a_requested_cancel(
    cast: Cast, worker: WorkerCalls, run_id: UUID
) -> None:
    beat = {
        "status": "running",
        "cancelRequested": False,
        "leaseExpiresAt": A_TIME,
        "recordEvents": "failures",
    }
    assert worker.heartbeat(run_id).json() == beat
    cast.client(cast.operator).post(f"/api/v1/runs/{run_id}/cancel")
    assert worker.heartbeat(run_id).json() == {**beat, "cancelRequested": True}
