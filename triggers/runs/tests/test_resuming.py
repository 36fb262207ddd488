"""A retry continues the session of the run before it on the worker that has it, or starts anew if it may."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pipedai.api.errors import Conflict
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Trigger
from triggers.runs.handout import choose_runs
from triggers.runs.routing import reassign_queued_runs
from triggers.services import TRIGGERS
from workers.models import Pool, Worker
from workers.pools.services import remove_worker
from workers.services import deregister_worker


@pytest.fixture
def two(cast: Cast) -> UUID:
    return cast.register("two").worker_id


@pytest.fixture
def runs(cast: Cast, two: UUID) -> Runs:
    """Runs of a trigger that resumes, in a pool of two workers that are online."""
    runs = Runs.of(
        cast,
        worker_id=None,
        pool_id=add_pool(cast, cast.worker.worker_id, two),
        retry_mode="resume",
    )
    runs.call(cast.worker.worker_id, two)
    return runs


def failed(runs: Runs, effects: int = 0, *, session_id: str | None = "s-1") -> Any:
    """Fails a new run by the cast's worker, and returns its retry when that is due."""
    run_id = runs.running()
    runs.heartbeat(run_id, (2, effects, 0), session_id=session_id)
    runs.complete(run_id, "failed", faultClass="infra")
    retry = runs.retry_of(run_id)
    if retry is not None:
        runs.now = retry["available_at"]
    return retry


def session_handed_out(runs: Runs, worker_id: UUID) -> str | None:
    (run,) = choose_runs(worker_id=worker_id, capacity=1, approved=True, now=runs.now)
    session_id: str | None = run.row["resume_session_id"]
    return session_id


def test_the_worker_that_has_the_session_alone_gets_the_retry_and_the_session(
    runs: Runs, two: UUID
) -> None:
    retry = failed(runs)
    assert retry["worker_id"] == runs.cast.worker.worker_id
    assert retry["resume_until"] == retry["available_at"] + timedelta(hours=1)
    assert session_handed_out(runs, runs.cast.worker.worker_id) == "s-1"
    assert runs.polled(two) == []
    with pytest.raises(Conflict) as first:
        runs.claim(retry["id"], worker_id=two)
    assert first.value.code == "first_worker"


def test_so_it_is_with_the_session_of_a_lost_run(runs: Runs) -> None:
    run_id = runs.running()
    runs.heartbeat(run_id, session_id="s-2")
    runs.lost(run_id)
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.now = retry["available_at"]
    assert session_handed_out(runs, runs.cast.worker.worker_id) == "s-2"


def test_after_an_hour_a_run_without_effects_starts_anew_anywhere(runs: Runs, two: UUID) -> None:
    retry = failed(runs)
    runs.now = retry["resume_until"]
    assert runs.expire_queued() == 0
    assert session_handed_out(runs, runs.cast.worker.worker_id) is None
    assert session_handed_out(runs, two) is None
    assert runs.claim(retry["id"], worker_id=two)["worker_id"] == two


def test_one_with_effects_fails_for_good(runs: Runs, two: UUID) -> None:
    retry = failed(runs, effects=1)
    runs.now = retry["resume_until"] - timedelta(seconds=1)
    assert runs.expire_queued() == 0
    runs.wait(seconds=1)
    assert runs.polled() == runs.polled(two) == []
    assert runs.expire_queued() == 1
    run = runs.stored(retry["id"])
    assert (run["status"], run["fault_class"], run["ended_by"]) == (
        "failed",
        "infra",
        "had_effects",
    )
    assert runs.retry_of(retry["id"]) is None


def test_effects_of_an_earlier_attempt_of_the_session_count_too(runs: Runs) -> None:
    retry = failed(runs, effects=1)
    runs.claim(retry["id"])
    runs.start(retry["id"])
    runs.heartbeat(retry["id"], (0, 0, 0), session_id="s-1")
    runs.complete(retry["id"], "failed", faultClass="infra")
    third = runs.retry_of(retry["id"])
    assert third is not None
    assert third["had_effects"]


@cases(("effects", "is_retried"), [(0, True), (1, False)], undone=True)
def test_without_a_session_a_run_is_restarted_only_if_it_had_no_effects(
    runs: Runs, effects: int, is_retried: bool
) -> None:
    retry = failed(runs, effects, session_id=None)
    assert (retry is not None) == is_retried
    if retry is not None:
        assert retry["resume_until"] is None


@cases(("effects", "status"), [(0, "queued"), (1, "failed")], undone=True)
def test_a_reassigned_retry_no_longer_waits_for_the_session(
    runs: Runs, two: UUID, effects: int, status: str
) -> None:
    retry = failed(runs, effects)
    Trigger.objects.filter(id=runs.trigger_id).update(pool_id=None, worker_id=two)
    reassign_queued_runs(trigger_id=runs.trigger_id, now=runs.now)
    runs.expire_queued()
    assert runs.stored(retry["id"])["status"] == status
    assert runs.polled(two) == ([retry["id"]] if status == "queued" else [])


def test_the_retry_of_a_retry_lost_before_it_told_its_session_resumes_the_same(runs: Runs) -> None:
    retry = failed(runs, effects=1)
    runs.claim(retry["id"])
    runs.lost(retry["id"])
    third = runs.retry_of(retry["id"])
    assert third is not None
    assert third["had_effects"]
    runs.now = third["available_at"]
    assert session_handed_out(runs, runs.cast.worker.worker_id) == "s-1"


def test_one_that_started_anew_and_is_lost_has_no_session(runs: Runs) -> None:
    retry = failed(runs)
    runs.now = retry["resume_until"]
    runs.claim(retry["id"])
    runs.lost(retry["id"])
    assert runs.stored(retry["id"])["session_id"] is None


def test_another_preference_lets_a_retry_wait_for_its_session(runs: Runs) -> None:
    retry = failed(runs)
    TRIGGERS.update(runs.trigger_id, values={"prefer_seconds": 5}, actor=TEST_ACTOR)
    assert runs.stored(retry["id"])["resume_until"] == retry["resume_until"]


def leave(runs: Runs) -> None:
    """Takes the cast's worker out of the pool of the runs' trigger."""
    pool = Pool.objects.get(id=runs.stored(runs.queue())["pool_id"])
    remove_worker(pool=pool, worker_id=runs.cast.worker.worker_id, actor=TEST_ACTOR)


def deregister(runs: Runs, heir: UUID | None) -> None:
    Trigger.objects.exclude(id=runs.trigger_id).update(worker_id=None)
    deregister_worker(
        worker=Worker.objects.get(id=runs.cast.worker.worker_id),
        reassign_to=heir,
        actor=TEST_ACTOR,
    )


def test_a_worker_that_left_the_pool_gets_no_retry_of_the_pool(runs: Runs, two: UUID) -> None:
    retry = failed(runs)
    leave(runs)
    assert runs.polled() == []
    assert retry["id"] in runs.polled(two)
    assert runs.stored(retry["id"])["resume_until"] is None


def test_a_run_that_it_held_when_it_left_is_restarted_by_others(runs: Runs, two: UUID) -> None:
    run_id = runs.running()
    runs.heartbeat(run_id, (0, 0, 0), session_id="s-1")
    leave(runs)
    runs.complete(run_id, "failed", faultClass="infra")
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert (retry["worker_id"], retry["resume_until"]) == (None, None)


def test_a_worker_of_the_trigger_itself_may_leave_the_pool_and_resume(runs: Runs) -> None:
    Trigger.objects.filter(id=runs.trigger_id).update(worker_id=runs.cast.worker.worker_id)
    retry = failed(runs)
    leave(runs)
    assert runs.stored(retry["id"])["resume_until"] == retry["resume_until"]


@cases("has_heir", [True, False], undone=True)
def test_a_retry_of_the_pool_does_not_wait_for_a_deregistered_worker(
    runs: Runs, two: UUID, has_heir: bool
) -> None:
    heir = runs.cast.register("heir").worker_id
    retry = failed(runs)
    deregister(runs, heir if has_heir else None)
    run = runs.stored(retry["id"])
    assert (run["worker_id"], run["resume_until"]) == (None, None)
    assert runs.polled(two) == [retry["id"]]
    assert runs.polled(heir) == []


def test_a_run_that_a_deregistered_worker_held_is_restarted_by_others(
    runs: Runs, two: UUID
) -> None:
    run_id = runs.running()
    runs.heartbeat(run_id, (0, 0, 0), session_id="s-1")
    deregister(runs, two)
    runs.lost(run_id)
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.now = retry["available_at"]
    assert runs.polled(two) == [retry["id"]]


def test_a_trigger_that_restarts_hands_out_no_session(cast: Cast) -> None:
    runs = Runs.of(cast)
    retry = failed(runs)
    assert retry["resume_until"] is None
    assert session_handed_out(runs, cast.worker.worker_id) is None
