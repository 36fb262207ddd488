"""claim: a worker takes a queued run."""

from datetime import timedelta
from uuid import uuid4

import pytest

from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import NOON, Runs, allow
from triggers.models import Run
from triggers.runs.lifecycle import Refused
from workers.models import Worker


def test_a_claim_takes_a_lease_a_deadline_and_a_place(runs: Runs) -> None:
    run_id = runs.claimed(claim_id="mine")
    run = runs.stored(run_id)
    assert run["status"] == "claimed"
    assert run["claim_id"] == "mine"
    assert run["claimed_at"] == NOON
    assert run["lease_expires_at"] == NOON + timedelta(seconds=180)
    assert run["deadline_at"] == NOON + timedelta(seconds=1800 + 60)
    assert run["slot"] == 1
    assert run["started_at"] is None


def test_the_lease_is_as_long_as_the_setting_says(runs: Runs, settings) -> None:
    settings.RUN_LEASE_SECONDS = 7
    assert runs.stored(runs.claimed())["lease_expires_at"] == NOON + timedelta(seconds=7)


def test_a_claim_is_audited_as_the_workers(runs: Runs) -> None:
    (_, entry) = runs.audited(runs.claimed())
    assert entry.action == "run.claimed"
    assert (entry.actor_type, entry.actor_id) == ("worker", runs.cast.worker.worker_id)
    assert (entry.environment_id, entry.target_type) == (runs.cast.environment.id, "run")
    assert entry.metadata == {"triggerId": str(runs.trigger_id), "status": "claimed"}


def test_a_run_can_be_claimed_from_the_instant_it_is_due(runs: Runs) -> None:
    retry = runs.retry_of(runs.lost())
    assert retry is not None
    runs.now = retry["available_at"] - timedelta(microseconds=1)
    with pytest.raises(Refused, match="not due yet"):
        runs.claim(retry["id"])
    runs.wait(microseconds=1)
    assert runs.claim(retry["id"])["status"] == "claimed"


def test_places_are_taken_from_the_first_and_used_again(runs: Runs) -> None:
    allow(runs.cast.worker.worker_id, 3)
    held = [runs.claimed() for _ in range(3)]
    assert [runs.stored(run_id)["slot"] for run_id in held] == [1, 2, 3]
    runs.complete(held[1])
    assert runs.stored(held[1])["slot"] is None
    assert runs.stored(runs.claimed())["slot"] == 2


def test_a_worker_gets_no_more_than_it_may_hold(runs: Runs) -> None:
    runs.claimed()
    waiting = runs.queue()
    with pytest.raises(Refused, match="holds as many runs as it may") as refusal:
        runs.claim(waiting)
    assert refusal.value.extra == {"status": "queued"}
    assert runs.actions(waiting) == ["run.created"]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda runs, run_id: runs.complete(run_id), id="completed"),
        pytest.param(lambda runs, run_id: runs.lost(run_id), id="lost"),
        pytest.param(lambda runs, run_id: runs.overdue(run_id), id="overdue"),
    ],
)
def test_the_end_of_a_run_frees_its_place(runs: Runs, end) -> None:
    run_id = runs.running()
    end(runs, run_id)
    assert runs.claim(runs.queue())["status"] == "claimed"


def test_a_requested_cancel_does_not_free_the_place(runs: Runs) -> None:
    runs.cancel(runs.running())
    with pytest.raises(Refused, match="holds as many"):
        runs.claim(runs.queue())


def test_other_workers_do_not_count(runs: Runs) -> None:
    other = runs.cast.register("host-2").worker_id
    theirs = runs.queue(trigger_id=runs.cast.add_trigger(worker_id=other))
    runs.claim(theirs, worker_id=other)
    assert runs.claim(runs.queue())["status"] == "claimed"


def test_a_lowered_maximum_counts_the_runs_and_not_the_places(runs: Runs) -> None:
    worker_id = runs.cast.worker.worker_id
    allow(worker_id, 3)
    first, second, third = (runs.claimed() for _ in range(3))
    allow(worker_id, 1)
    runs.complete(first)
    waiting = runs.queue()
    # The first place is free, but the worker holds two runs.
    with pytest.raises(Refused, match="holds as many"):
        runs.claim(waiting)
    runs.complete(second)
    with pytest.raises(Refused, match="holds as many"):
        runs.claim(waiting)
    runs.complete(third)
    assert runs.claim(waiting)["status"] == "claimed"


def test_a_disabled_worker_gets_nothing_new_and_finishes_what_it_holds(runs: Runs) -> None:
    allow(runs.cast.worker.worker_id, 2)
    held, waiting = runs.claimed(), runs.queue()
    Worker.objects.filter(id=runs.cast.worker.worker_id).update(disabled_at=NOON)
    with pytest.raises(Refused, match="paused"):
        runs.claim(waiting)
    assert runs.claim(held)["status"] == "claimed"
    assert runs.start(held)["status"] == "running"
    assert runs.heartbeat(held)["status"] == "running"
    assert runs.complete(held)["status"] == "succeeded"


def test_a_repeated_claim_answers_also_when_all_places_are_taken(runs: Runs) -> None:
    run_id = runs.claimed()
    before = runs.stored(run_id)
    runs.wait(seconds=30)
    assert runs.claim(run_id)["claimed_at"] == NOON
    assert runs.stored(run_id) == before


# --- Over HTTP


@pytest.fixture
def worker(cast: Cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


@pytest.fixture
def run_id(runs: Runs):
    return runs.queue()


@cases(
    ("first", "second", "status"),
    [
        ({}, {}, 200),
        ({}, {"claimId": None}, 200),
        ({"claimId": "a"}, {"claimId": "a"}, 200),
        ({"claimId": ""}, {"claimId": ""}, 200),
        ({"claimId": " a"}, {"claimId": " a"}, 200),
        ({"claimId": "a"}, {"claimId": "A"}, 409),
        ({"claimId": "a"}, {"claimId": " a"}, 409),
        ({"claimId": "a"}, {}, 409),
        ({}, {"claimId": ""}, 409),
    ],
    undone=True,
)
def test_a_claim_id_is_compared_as_it_is(
    worker: WorkerCalls, run_id, first: dict, second: dict, status: int
) -> None:
    assert worker.claim(run_id, **first).status_code == 200
    assert worker.claim(run_id, **second).status_code == status


def test_a_second_claim_with_another_claim_id_is_refused(worker: WorkerCalls, run_id) -> None:
    worker.claim(run_id, claimId="a")
    answer = worker.claim(run_id, claimId="b")
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "The run has been claimed with another claimId.",
        "code": "claimed_by_another",
        "status": "claimed",
    }


def test_a_claim_id_may_have_64_characters(worker: WorkerCalls, run_id) -> None:
    assert worker.claim(run_id, claimId="é" * 64).status_code == 200


@cases("claim_id", ["x" * 65, 7, True, ["a"], {}], undone=True)
def test_a_bad_claim_id_is_a_field_error(worker: WorkerCalls, run_id, claim_id) -> None:
    answer = worker.claim(run_id, claimId=claim_id)
    assert answer.status_code == 400
    assert list(answer.json()["details"]["fieldErrors"]) == ["claimId"]
    assert Run.objects.get(id=run_id).status == "queued"


def test_unknown_fields_are_ignored(worker: WorkerCalls, run_id) -> None:
    assert worker.claim(run_id, claimId="a", pool="eu").status_code == 200
    assert worker.start(run_id, pid=7).status_code == 200
    assert worker.heartbeat(run_id, progress=0.5).status_code == 200
    assert worker.complete(run_id, status="succeeded", gpu="none").status_code == 200


def test_each_call_answers_with_the_run(worker: WorkerCalls, run_id) -> None:
    for answer in (
        worker.claim(run_id),
        worker.start(run_id),
        worker.complete(run_id, status="succeeded"),
    ):
        run = answer.json()
        assert run["id"] == str(run_id)
        assert run["triggerName"] == "Nightly report"
        assert "payload" not in run
        assert "mcpHeaders" not in run


def test_another_workers_run_looks_missing(cast: Cast, runs: Runs, worker: WorkerCalls) -> None:
    other = cast.register("host-2").worker_id
    theirs = runs.queue(trigger_id=cast.add_trigger(worker_id=other))
    missing = worker.claim(uuid4())
    for call in (worker.claim, worker.start, worker.heartbeat):
        answer = call(theirs)
        assert (answer.status_code, answer.content) == (404, missing.content)
    answer = worker.complete(theirs, status="succeeded")
    assert (answer.status_code, answer.content) == (404, missing.content)
