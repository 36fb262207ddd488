"""When two calls race on real connections, there is exactly one consistent outcome."""

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError

from audit.models import AuditEntry
from pipedai.api.errors import ApiError
from pipedai.events import SYSTEM, Actor
from pipedai.sql import execute
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.world.runs import Runs
from triggers.models import Run
from triggers.runs.queueing import run_trigger
from triggers.services import TRIGGERS
from triggers.states import Source
from workspaces.models import Membership


@pytest.fixture
def runs(committed_runs: Runs) -> Runs:
    return committed_runs


def _statuses(answers: list[Any]) -> list[int]:
    """Returns the status of each answer: 200 if the lifecycle returned, else that of the error it raised."""
    return sorted(answer.status_code if isinstance(answer, ApiError) else 200 for answer in answers)


@pytest.mark.parametrize("round_", ROUNDS)
def test_thirty_requests_with_one_key_make_one_run_and_all_get_it(runs: Runs, round_: int) -> None:
    caller_id = uuid4()
    ask = partial(
        run_trigger,
        trigger_id=runs.trigger_id,
        caller_id=caller_id,
        key="key",
        payload={"a": 1},
        source=Source.API,
        actor=Actor("api_key", caller_id),
    )
    answers = accepted(at_once(*[ask] * 30))
    assert len({answer.run["id"] for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 29
    assert Run.objects.count() == 1
    assert AuditEntry.objects.filter(action="run.created").count() == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_one_key_with_many_bodies_makes_one_run(runs: Runs, round_: int) -> None:
    ask = partial(
        run_trigger,
        trigger_id=runs.trigger_id,
        caller_id=uuid4(),
        key="key",
        source=Source.API,
        actor=SYSTEM,
    )
    answers = at_once(*[partial(ask, payload=n) for n in range(8)])
    assert _statuses(answers) == [200] + [409] * 7
    assert Run.objects.count() == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_claim_and_a_cancel_either_comes_first(runs: Runs, round_: int) -> None:
    run_id = runs.queue()
    claimed, canceled = at_once(partial(runs.claim, run_id), partial(runs.cancel, run_id))
    run = runs.stored(run_id)
    assert not isinstance(canceled, ApiError)
    if isinstance(claimed, ApiError):
        assert (run["status"], run["ended_by"], run["slot"]) == ("canceled", "user", None)
        assert runs.actions(run_id) == ["run.created", "run.canceled"]
    else:
        assert (run["status"], run["slot"]) == ("claimed", 1)
        assert run["cancel_requested_at"] is not None
        assert sorted(runs.actions(run_id)) == [
            "run.cancel-requested",
            "run.claimed",
            "run.created",
        ]


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("fault", ["client", "infra"])
def test_of_a_complete_and_an_expiry_each_leaves_one_retry_at_most(
    runs: Runs, round_: int, fault: str
) -> None:
    run_id = runs.running()
    runs.now = runs.stored(run_id)["lease_expires_at"]
    completed, expired = at_once(
        partial(runs.complete, run_id, "failed", faultClass=fault), runs.expire
    )
    assert not isinstance(completed, ApiError)
    run, retry = runs.stored(run_id), runs.retry_of(run_id)
    assert (run["status"], run["ended_by"], run["fault_class"]) == ("failed", "worker", fault)
    late = expired == 1
    assert len(runs.deliveries(run_id)) == 1 + late
    assert runs.actions(run_id).count("run.lost") == late
    if fault == "infra":
        assert retry is not None
        assert retry["status"] == "queued"
    else:
        assert (retry["status"] if retry else None) == ("canceled" if late else None)


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_late_result_and_the_retrys_claim_only_one_counts(runs: Runs, round_: int) -> None:
    run_id = runs.lost()
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.now = retry["available_at"]
    completed, claimed = at_once(partial(runs.complete, run_id), partial(runs.claim, retry["id"]))
    assert _statuses([completed, claimed]) == [200, 409]
    run, retry = runs.stored(run_id), runs.retry_of(run_id)
    assert retry is not None
    if isinstance(completed, ApiError):
        assert (run["status"], run["ended_by"]) == ("failed", "lease")
        assert run["late_result"]["status"] == "succeeded"
        assert retry["status"] == "claimed"
    else:
        assert (run["status"], run["ended_by"]) == ("succeeded", "worker")
        assert (retry["status"], retry["ended_by"]) == ("canceled", "late_result")


@pytest.mark.parametrize("round_", ROUNDS)
def test_schedulers_side_by_side_end_each_run_once(runs: Runs, round_: int) -> None:
    execute("UPDATE worker SET max_concurrency = 20", {})
    run_ids = [runs.running() for _ in range(20)]
    runs.now += timedelta(seconds=180)
    while sum(accepted(at_once(*[partial(runs.expire, limit=7)] * 4))):
        pass
    for run_id in run_ids:
        assert runs.stored(run_id)["status"] == "failed"
        assert len(runs.deliveries(run_id)) == 1
        assert runs.actions(run_id).count("run.lost") == 1
    assert Run.objects.filter(source="retry").count() == 20


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_repeated_complete_at_the_same_moment_counts_once(runs: Runs, round_: int) -> None:
    run_id = runs.running()
    report = partial(runs.complete, run_id, "failed", faultClass="infra", errorMessage="Broken.")
    answers = accepted(at_once(*[report] * 6))
    assert {answer["error_message"] for answer in answers} == {"Broken."}
    assert len(runs.deliveries(run_id)) == 1
    assert runs.actions(run_id).count("run.completed") == 1
    assert Run.objects.filter(retry_of_id=run_id).count() == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_different_completes_at_the_same_moment_end_the_run_once(runs: Runs, round_: int) -> None:
    run_id = runs.running()
    answers = at_once(
        partial(runs.complete, run_id, "succeeded"),
        partial(runs.complete, run_id, "failed", faultClass="infra"),
        partial(runs.complete, run_id, "timed_out"),
    )
    assert _statuses(answers) == [200, 409, 409]
    assert len(runs.deliveries(run_id)) == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_everyone_at_once_comes_to_a_consistent_end(runs: Runs, round_: int) -> None:
    """No calls deadlock with each other: `at_once` raises every error that is not an answer of the API."""
    execute("UPDATE worker SET max_concurrency = 9", {})
    other = runs.cast.register("host-2").worker_id
    run_ids = [runs.running() for _ in range(3)]
    runs.now = runs.stored(run_ids[0])["lease_expires_at"]
    update = partial(TRIGGERS.update, runs.trigger_id, actor=SYSTEM)
    at_once(
        *[partial(runs.complete, run_id, "failed", faultClass="infra") for run_id in run_ids],
        *[partial(runs.cancel, run_id) for run_id in run_ids],
        *[partial(runs.heartbeat, run_id) for run_id in run_ids],
        runs.expire,
        runs.expire,
        runs.queue,
        partial(update, values={"worker_id": other}),
        partial(update, values={"enabled": False}),
    )
    for run_id in run_ids:
        run, retry = runs.stored(run_id), runs.retry_of(run_id)
        assert run["ended_at"] is not None
        assert len(runs.deliveries(run_id)) in (1, 2)
        assert retry is None or retry["worker_id"] in (runs.cast.worker.worker_id, other)
    queued = Run.objects.filter(status="queued").values_list("worker_id", flat=True)
    assert set(queued) <= {other}, "a queued run was left behind with the old worker"


def test_two_owners_cannot_remove_each_other_at_once(runs: Runs) -> None:
    owners = Membership.objects.filter(environment=runs.cast.environment)
    owners.filter(role="admin").update(role="owner")

    def remove(membership_id: UUID) -> bool:
        try:
            Membership.objects.filter(id=membership_id).delete()
        except IntegrityError:
            return False
        return True

    ids = owners.filter(role="owner").values_list("id", flat=True)
    assert sorted(accepted(at_once(*[partial(remove, one) for one in ids]))) == [False, True]
    assert owners.filter(role="owner").count() == 1
