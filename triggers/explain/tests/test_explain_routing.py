"""GET /runs/:id/explain tells what pools, limits, pauses, deadlines and sessions keep a run waiting for (§13, §16)."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from pipedai.sql import database_now
from testing.probes.shapes import A_TIME
from testing.processes.explain_calls import Calls, only, worker_subject
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow
from workers.models import Worker


def told(answer: dict[str, Any]) -> list[str]:
    """Returns the codes of an answer."""
    return [reason["code"] for reason in answer["waitingFor"]]


def pool_subject(pool_id: UUID) -> dict[str, str]:
    return {"type": "pool", "id": str(pool_id), "name": "Linux"}


# --- What a queued run waits for


def test_a_paused_environment(calls: Calls, cast: Cast) -> None:
    run_id = calls.queue()
    url = f"/api/v1/environments/{cast.environment.id}"
    answer = calls.admin.patch(url, {"paused": True, "pauseReason": "Migration"})
    assert answer.status_code == 200
    reason = only(calls.explain(run_id))
    assert (reason["code"], reason["since"], reason["until"]) == (
        "environment_paused",
        A_TIME,
        None,
    )
    assert reason["subject"] == {
        "type": "environment", "id": str(cast.environment.id), "name": "production"
    }  # fmt: skip
    assert reason["message"].startswith("Environment production has been paused since ")
    assert reason["message"].endswith(" (Migration).")
    assert reason["remedy"] == "Resume it with PATCH /environments/:id (paused: false)."


def test_a_pool_without_workers(calls: Calls, cast: Cast) -> None:
    pool_id = add_pool(cast, name="Linux")
    reason = only(calls.explain(calls.queue(cast.add_trigger(worker_id=None, pool_id=pool_id))))
    assert (reason["code"], reason["subject"]) == ("pool_empty", pool_subject(pool_id))
    assert reason["message"] == "Pool Linux has no machines."
    assert reason["remedy"] == "Add a machine to the pool with PUT /pools/:id/workers/:workerId."


def test_a_pool_whose_workers_are_away_or_full(calls: Calls, cast: Cast) -> None:
    two = cast.register("two").worker_id
    pool_id = add_pool(cast, cast.worker.worker_id, two, name="Linux")
    trigger_id = cast.add_trigger(worker_id=None, pool_id=pool_id)
    held: Any = calls.queue(trigger_id)
    assert calls.worker.claim(held).status_code == 200
    answer = calls.explain(calls.queue(trigger_id))
    away, full = answer["waitingFor"]
    assert (away["code"], away["since"]) == ("pool_offline", None)
    assert away["message"] == "1 of the 2 machines of pool Linux has never called."
    assert away["remedy"].startswith("Start the worker program on one of them, or add a machine")
    assert (full["code"], full["since"]) == ("pool_full", A_TIME)
    assert full["message"] == "1 of the 2 machines of pool Linux holds as many runs as it may."
    assert "hold more with PATCH /workers/:id (maxConcurrency)" in full["remedy"]
    assert away["subject"] == full["subject"] == pool_subject(pool_id)
    assert answer["summary"] == (
        "1 of the 2 machines of pool Linux has never called (1 more reason)."
    )
    Worker.objects.filter(id=two).update(last_seen_at=database_now())
    assert calls.explain(answer["runId"])["summary"].startswith(
        "It is due, and the machine of pool Linux that next asks for work takes it (last heard from "
    )


def test_a_run_that_is_for_a_full_worker_first(calls: Calls, cast: Cast) -> None:
    two = cast.register("two")
    assert WorkerCalls(two).poll().status_code == 200
    held: Any = calls.queue()
    assert calls.worker.claim(held).status_code == 200
    calls.change_trigger(poolId=str(add_pool(cast, two.worker_id, name="Linux")))
    answer = calls.explain(calls.queue())
    assert told(answer) == ["worker_full", "first_worker"]
    first = answer["waitingFor"][1]
    assert (first["subject"], first["until"]) == (worker_subject(cast), A_TIME)
    assert first["message"].startswith(
        "It is for machine host-1 first. All machines of pool Linux may take it from "
    )


def test_a_trigger_at_its_limit(calls: Calls, cast: Cast) -> None:
    allow(cast.worker.worker_id, 5)
    calls.change_trigger(maxConcurrentRuns=1)
    held: Any = calls.queue()
    assert calls.worker.claim(held).status_code == 200
    reason = only(calls.explain(calls.queue()))
    assert reason["code"] == "trigger_full"
    assert reason["subject"] == {
        "type": "trigger", "id": str(cast.trigger_id), "name": "Nightly report"
    }  # fmt: skip
    assert reason["message"] == (
        "1 run of trigger Nightly report is under way, and no more than 1 may be at once."
    )
    assert "at once with PATCH /triggers/:id (maxConcurrentRuns)" in reason["remedy"]


# --- Usage limits, sessions and start deadlines


def test_a_usage_limit_then_a_session_that_only_the_limited_worker_can_continue(
    calls: Calls,
) -> None:
    calls.change_trigger(retryMode="resume")
    resets = (database_now() + timedelta(hours=2)).isoformat()
    run_id = calls.end(
        "failed",
        faultClass="infra",
        sessionId="a-session",
        usageLimit={"resetsAt": resets, "kind": "five_hour"},
    )
    retry = calls.explain(run_id)["retry"]
    assert (retry["decision"], retry["code"]) == ("due", "usage_limit")
    assert retry["message"].startswith(
        "Its retry, which does not count among the trigger's retries, has "
    )
    answer = calls.explain(retry["runId"])
    assert told(answer) == ["worker_limited", "resume_worker"]
    limited, resumes = answer["waitingFor"]
    assert (limited["until"], limited["subject"]) == (A_TIME, resumes["subject"])
    assert limited["message"].startswith("Machine host-1 gets no runs until ")
    assert "PATCH /workers/:id (limitedUntil: null)" in limited["remedy"]
    assert resumes["message"].startswith("Only machine host-1 can continue its session. If it does")
    assert resumes["until"] == A_TIME


def test_a_start_deadline_that_will_pass(calls: Calls) -> None:
    calls.change_trigger(startDeadlineSeconds=60)
    summary = calls.explain(calls.queue())["summary"]
    assert " It ends as failed unless a machine takes it before " in summary


def test_a_start_deadline_that_passed(cast: Cast) -> None:
    """The clock of these runs stands in the past, so the deadline is over for the API."""
    calls, runs = Calls(cast), Runs.of(cast, start_deadline_seconds=60)
    run_id = runs.queue()
    reason = only(calls.explain(str(run_id)))
    assert (reason["code"], reason["since"]) == ("start_deadline", "2026-05-04T12:01:00.000Z")
    assert reason["subject"]["type"] == "trigger"
    assert reason["message"].startswith("No machine took it before its start deadline at ")
    assert reason["remedy"].startswith("Let later runs stay queued longer with PATCH /triggers/:id")
    runs.wait(minutes=1)
    assert runs.expire_queued() == 1
    answer = calls.explain(str(run_id))
    assert (answer["ended"]["by"], answer["retry"]["code"]) == ("start_deadline", "start_deadline")
    assert answer["retry"]["message"] == (
        "It is not retried, because no machine had taken it before its start deadline."
    )


def test_a_session_that_nobody_continued_in_time(cast: Cast) -> None:
    """The clock of these runs stands in the past, so the time of the session is over for the API."""
    calls, runs = Calls(cast), Runs.of(cast, retry_mode="resume")
    first = runs.ended(
        "failed",
        faultClass="infra",
        sessionId="a-session",
        toolCalls={"total": 1, "effects": 1, "unknown": 0},
    )
    retry = runs.retry_of(first)
    assert retry is not None
    reason = only(calls.explain(str(retry["id"])))
    assert (reason["code"], reason["since"]) == ("had_effects", "2026-05-04T13:00:30.000Z")
    assert reason["message"].startswith("It could continue its session until ")
    runs.wait(hours=2)
    assert runs.expire_queued() == 1
    answer = calls.explain(str(retry["id"]))
    assert (answer["ended"]["by"], answer["retry"]["code"]) == ("had_effects", "had_effects")
    assert answer["retry"]["message"].endswith("and its session can't be continued any more.")
