"""expire_runs: the scheduler ends runs whose lease or whose deadline has passed."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection

from pipedai.loop import registered_jobs
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import NOON, Runs, allow
from triggers.models import Run
from triggers.runs import lifecycle


def test_a_lease_lasts_until_the_very_instant_that_it_names(runs: Runs) -> None:
    run_id = runs.running()
    runs.now = NOON + timedelta(seconds=180, microseconds=-1)
    assert runs.expire() == 0
    runs.wait(microseconds=1)
    assert runs.expire() == 1
    run = runs.stored(run_id)
    assert (run["status"], run["ended_by"]) == ("failed", "lease")
    assert run["fault_class"] == "infra"
    assert run["ended_at"] == runs.now
    assert (run["slot"], run["lease_expires_at"], run["deadline_at"]) == (None, None, None)


def test_a_lost_run_says_for_how_long_nothing_was_heard(runs: Runs) -> None:
    run_id = runs.lost()
    assert runs.stored(run_id)["error_message"] == "worker lost: no heartbeat for 180 s"


def test_silence_is_counted_from_the_last_heartbeat(runs: Runs) -> None:
    run_id = runs.running()
    runs.wait(seconds=60)
    runs.heartbeat(run_id)
    runs.wait(seconds=250.4)
    runs.expire()
    assert runs.stored(run_id)["error_message"] == "worker lost: no heartbeat for 250 s"


def test_the_lease_of_the_setting_is_what_silence_is_measured_by(runs: Runs, settings) -> None:
    settings.RUN_LEASE_SECONDS = 5
    run_id = runs.lost()
    assert runs.stored(run_id)["error_message"] == "worker lost: no heartbeat for 5 s"


@cases("started", [True, False], undone=True)
def test_the_deadline_counts_from_the_start_or_from_the_claim(cast: Cast, started: bool) -> None:
    runs = Runs.of(cast, timeout_seconds=10)
    run_id = runs.claimed()
    if started:
        runs.wait(seconds=30)
        runs.start(run_id)
    since = runs.now
    runs.now = since + timedelta(seconds=10 + 60, microseconds=-1)
    assert runs.expire() == 0
    runs.wait(microseconds=1)
    assert runs.expire() == 1
    run = runs.stored(run_id)
    assert (run["status"], run["ended_by"], run["fault_class"]) == (
        "timed_out",
        "deadline",
        "client",
    )
    assert run["error_message"] == "timed out: no result within 10 s"


def test_heartbeats_keep_the_lease_but_do_not_put_the_deadline_off(runs: Runs) -> None:
    run_id = runs.running()
    while runs.now < NOON + timedelta(seconds=1800):
        runs.wait(seconds=120)
        runs.heartbeat(run_id)
        assert runs.expire() == 0
    runs.now = NOON + timedelta(seconds=1860)
    assert runs.expire() == 1
    assert runs.stored(run_id)["status"] == "timed_out"


@cases(
    ("timeout_seconds", "verdict"),
    [(10, "timed_out"), (119, "timed_out"), (120, "failed")],
    undone=True,
)
def test_of_a_lease_and_a_deadline_that_both_passed_the_first_decides(
    cast: Cast, timeout_seconds: int, verdict: str
) -> None:
    runs = Runs.of(cast, timeout_seconds=timeout_seconds)
    run_id = runs.running()
    runs.wait(hours=1)
    runs.expire()
    assert runs.stored(run_id)["status"] == verdict


def test_a_lost_run_that_was_to_be_canceled_is_canceled(runs: Runs) -> None:
    run_id = runs.running()
    runs.cancel(run_id)
    run = runs.stored(runs.lost(run_id))
    assert (run["status"], run["fault_class"], run["ended_by"]) == ("canceled", "none", "lease")
    assert runs.retry_of(run_id) is None


def test_the_systems_verdict_is_audited_as_the_systems(runs: Runs) -> None:
    lost = runs.audited(runs.lost())[-1]
    assert (lost.action, lost.actor_type, lost.actor_id) == ("run.lost", "system", None)
    assert lost.metadata == {
        "triggerId": str(runs.trigger_id),
        "status": "failed",
        "faultClass": "infra",
    }
    overdue = runs.audited(runs.overdue())[-1]
    assert (overdue.action, overdue.metadata["status"]) == ("run.timed-out", "timed_out")


def test_queued_and_ended_runs_are_left_alone(runs: Runs) -> None:
    run_ids = [runs.ended(), runs.queue()]
    before = [runs.stored(run_id) for run_id in run_ids]
    runs.wait(days=400)
    assert runs.expire() == 0
    assert [runs.stored(run_id) for run_id in run_ids] == before


def test_a_batch_ends_no_more_than_its_limit_and_says_how_many(runs: Runs) -> None:
    allow(runs.cast.worker.worker_id, 5)
    for _ in range(5):
        runs.running()
    runs.wait(seconds=180)
    assert [runs.expire(limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_one_batch_ends_runs_of_many_triggers_and_workers(cast: Cast) -> None:
    runs = Runs.of(cast)
    other = cast.register("host-2").worker_id
    theirs = cast.add_trigger(worker_id=other)
    mine, yours = runs.running(), runs.running(trigger_id=theirs, worker_id=other)
    late = runs.stored(mine)["deadline_at"]
    runs.now = late - timedelta(seconds=1)
    runs.heartbeat(mine)
    runs.now = late
    assert runs.expire() == 2
    assert runs.stored(mine)["status"] == "timed_out"
    assert runs.stored(yours)["status"] == "failed"


def test_the_verdict_stands_or_falls_with_all_that_follows_from_it(runs: Runs) -> None:
    run_id = runs.running()
    before = runs.stored(run_id)
    runs.now = before["lease_expires_at"]
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE delivery ADD CONSTRAINT refused CHECK (false) NOT VALID")
    with pytest.raises(IntegrityError, match="refused"):
        runs.expire()
    assert runs.stored(run_id) == before
    assert Run.objects.count() == 1
    assert runs.actions(run_id)[-1] == "run.started"


def test_the_scheduler_does_it_every_second() -> None:
    (job,) = [job for job in registered_jobs() if job.work is lifecycle.expire_runs]
    assert (job.name, job.every_seconds) == ("expire-runs", 1.0)
