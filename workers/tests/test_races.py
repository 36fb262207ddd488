"""Calls of workers race at the real endpoints, on real connections."""

from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from audit.models import AuditEntry
from pipedai.api.errors import ApiError, Unauthenticated
from pipedai.events import Actor
from pipedai.sql import database_now, execute
from testing.processes.racing import ROUNDS, Started, accepted, at_once
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow
from triggers.models import Run
from workers.models import Worker
from workers.registration import Registered, register_worker
from workers.services import deregister_worker, revoke_token, update_worker
from workspaces.models import ApiKey


@pytest.fixture
def cast(committed_cast: Cast) -> Cast:
    return committed_cast


@pytest.fixture
def runs(cast: Cast) -> Runs:
    runs = Runs.of(cast)
    runs.now = database_now()
    return runs


def _claim(cast: Cast, run_id: UUID, claim_id: str) -> Any:
    return WorkerCalls(cast.worker).claim(run_id, claimId=claim_id)


def _claim_all(cast: Cast, run_ids: list[UUID]) -> list[int]:
    """Claims all the runs at once, and returns the sorted statuses."""
    answers = at_once(*[partial(_claim, cast, run_id, "mine") for run_id in run_ids])
    return sorted(answer.status_code for answer in accepted(answers))


def _worker(cast: Cast) -> Worker:
    return Worker.objects.get(id=cast.worker.worker_id)


# --- Claims


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_twenty_claims_of_one_run_one_gets_it(cast: Cast, runs: Runs, round_: int) -> None:
    allow(cast.worker.worker_id, 50)
    run_id = runs.queue()
    answers = accepted(at_once(*[partial(_claim, cast, run_id, f"claim-{n}") for n in range(20)]))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    (winner,) = (n for n, answer in enumerate(answers) if answer.status_code == 200)
    assert runs.stored(run_id)["claim_id"] == f"claim-{winner}"
    assert {answer.json()["status"] for answer in answers} == {"claimed"}
    assert runs.actions(run_id) == ["run.created", "run.claimed"]


@pytest.mark.parametrize("round_", ROUNDS)
def test_one_claim_sent_twenty_times_is_answered_twenty_times(
    cast: Cast, runs: Runs, round_: int
) -> None:
    run_id = runs.queue()
    assert _claim_all(cast, [run_id] * 20) == [200] * 20
    assert runs.actions(run_id) == ["run.created", "run.claimed"]


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("maximum", [1, 3])
def test_of_twenty_runs_a_worker_gets_as_many_as_it_may_hold(
    cast: Cast, runs: Runs, maximum: int, round_: int
) -> None:
    allow(cast.worker.worker_id, maximum)
    run_ids = [runs.queue() for _ in range(20)]
    assert _claim_all(cast, run_ids) == [200] * maximum + [409] * (20 - maximum)
    slots = Run.objects.filter(slot__isnull=False).values_list("slot", flat=True)
    assert set(slots) == set(range(1, maximum + 1))


@pytest.mark.parametrize("round_", ROUNDS)
def test_claims_and_completes_together_never_exceed_the_maximum(
    cast: Cast, runs: Runs, round_: int
) -> None:
    allow(cast.worker.worker_id, 2)
    held = [runs.claimed(), runs.claimed()]
    waiting = [runs.queue() for _ in range(6)]
    answers = accepted(
        at_once(
            *[partial(_claim, cast, run_id, "mine") for run_id in waiting],
            *[
                partial(WorkerCalls(cast.worker).complete, run_id, status="succeeded")
                for run_id in held
            ],
        )
    )
    claims = [answer.status_code for answer in answers[:6]]
    assert claims.count(200) <= 2
    assert set(claims) <= {200, 409}
    assert [answer.status_code for answer in answers[6:]] == [200, 200]
    assert Run.objects.filter(slot__isnull=False).count() == claims.count(200)


# --- Claims of the next run


def _claim_next(cast: Cast, claim_id: str, **body: Any) -> Any:
    return WorkerCalls(cast.worker).claim_next(claimId=claim_id, **body)


@pytest.mark.parametrize("round_", ROUNDS)
def test_one_claim_of_the_next_run_sent_ten_times_gets_one_run(
    cast: Cast, runs: Runs, round_: int
) -> None:
    allow(cast.worker.worker_id, 50)
    queued = [runs.queue() for _ in range(5)]
    calls = [partial(_claim_next, cast, "mine", start=bool(n % 2)) for n in range(10)]
    answers = [answer.json()["run"]["id"] for answer in accepted(at_once(*calls))]
    assert answers == [str(queued[0])] * 10
    assert Run.objects.filter(slot__isnull=False).count() == 1
    assert runs.actions(queued[0]) == ["run.created", "run.claimed", "run.started"]


@pytest.mark.parametrize("round_", ROUNDS)
def test_claims_of_the_next_run_with_their_own_claim_ids_get_a_run_each(
    cast: Cast, runs: Runs, round_: int
) -> None:
    allow(cast.worker.worker_id, 3)
    queued = {str(runs.queue()) for _ in range(5)}
    calls = [partial(_claim_next, cast, str(n)) for n in range(6)]
    got = [answer.json()["run"] for answer in accepted(at_once(*calls))]
    ids = [run["id"] for run in got if run is not None]
    assert len(ids) == len(set(ids)) == 3
    assert set(ids) < queued


@pytest.mark.parametrize("round_", ROUNDS)
def test_workers_of_a_pool_that_claim_the_next_run_get_no_run_twice(
    cast: Cast, runs: Runs, round_: int
) -> None:
    others = [cast.register(f"host-{n}") for n in range(5)]
    pool_id = add_pool(cast, *(other.worker_id for other in others))
    of_pool = Runs.of(cast, worker_id=None, pool_id=pool_id)
    of_pool.now = runs.now
    queued = {str(of_pool.queue()) for _ in range(3)}
    calls = [partial(WorkerCalls(other).claim_next, claimId="mine") for other in others]
    got = [answer.json()["run"] for answer in accepted(at_once(*calls))]
    ids = [run["id"] for run in got if run is not None]
    assert len(ids) == len(set(ids))
    assert set(ids) == queued


def test_a_claim_of_the_next_run_waits_for_its_twin_and_gets_the_same(
    cast: Cast, runs: Runs
) -> None:
    allow(cast.worker.worker_id, 2)
    queued = [runs.queue(), runs.queue()]
    with transaction.atomic():
        first = _claim_next(cast, "mine").json()["run"]
        twin = Started(partial(_claim_next, cast, "mine", start=True))
        twin.wait_until_blocked()
    again = twin.answer()
    assert not isinstance(again, ApiError)
    assert first["id"] == again.json()["run"]["id"] == str(queued[0])
    assert again.json()["run"]["status"] == "running"
    assert runs.stored(queued[1])["status"] == "queued"


# --- Claims and changes of the worker


def test_a_claim_waits_for_a_lowered_maximum_and_heeds_it(cast: Cast, runs: Runs) -> None:
    allow(cast.worker.worker_id, 2)
    runs.claimed()
    waiting = runs.queue()
    with transaction.atomic():
        update_worker(worker=_worker(cast), values={"max_concurrency": 1}, actor=TEST_ACTOR)
        claiming = Started(partial(_claim, cast, waiting, "mine"))
        claiming.wait_until_blocked()
    assert _status(claiming) == 409


def test_a_claim_waits_for_a_disabling_and_heeds_it(cast: Cast, runs: Runs) -> None:
    waiting = runs.queue()
    with transaction.atomic():
        update_worker(worker=_worker(cast), values={"disabled": True}, actor=TEST_ACTOR)
        claiming = Started(partial(_claim, cast, waiting, "mine"))
        claiming.wait_until_blocked()
    assert _status(claiming) == 409


def test_a_token_that_dies_under_a_claim_claims_nothing(cast: Cast, runs: Runs) -> None:
    waiting = runs.queue()
    with transaction.atomic():
        revoke_token(worker=_worker(cast), actor=TEST_ACTOR)
        claiming = Started(partial(_claim, cast, waiting, "mine"))
        claiming.wait_until_blocked()
    assert _status(claiming) == 401
    assert runs.stored(waiting)["status"] == "queued"


def test_a_claim_waits_for_its_workers_leaving_and_the_run_goes_to_the_heir(
    cast: Cast, runs: Runs
) -> None:
    waiting = runs.queue()
    heir = cast.register("host-2")
    with transaction.atomic():
        deregister_worker(worker=_worker(cast), reassign_to=heir.worker_id, actor=TEST_ACTOR)
        claiming = Started(partial(_claim, cast, waiting, "mine"))
        claiming.wait_until_blocked()
    assert _status(claiming) == 401
    run = runs.stored(waiting)
    assert (run["status"], run["worker_id"]) == ("queued", heir.worker_id)


def test_a_leaving_waits_for_a_retry_and_takes_it_to_the_heir(cast: Cast, runs: Runs) -> None:
    run_id = runs.running()
    heir = cast.register("host-2")
    with transaction.atomic():
        runs.complete(run_id, "failed", faultClass="infra")
        leaving = Started(
            partial(
                deregister_worker,
                worker=_worker(cast),
                reassign_to=heir.worker_id,
                actor=TEST_ACTOR,
            )
        )
        leaving.wait_until_blocked()
    assert leaving.answer() is None
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert retry["worker_id"] == heir.worker_id


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_leaving_meets_claims_completes_and_new_runs(cast: Cast, runs: Runs, round_: int) -> None:
    """There is no deadlock, and no run is left in the queue of a deregistered worker."""
    allow(cast.worker.worker_id, 4)
    heir = cast.register("host-2")
    held = [runs.running(), runs.running()]
    waiting = [runs.queue() for _ in range(4)]
    calls = WorkerCalls(cast.worker)
    at_once(
        partial(
            deregister_worker, worker=_worker(cast), reassign_to=heir.worker_id, actor=TEST_ACTOR
        ),
        *[partial(_claim, cast, run_id, "mine") for run_id in waiting],
        *[partial(calls.complete, run_id, status="failed", faultClass="infra") for run_id in held],
        *[runs.queue] * 4,
    )
    queued = Run.objects.filter(status="queued").values_list("worker_id", flat=True)
    assert set(queued) <= {heir.worker_id}


def _status(started: Started[Any]) -> int:
    answer = started.answer()
    assert not isinstance(answer, ApiError)
    return int(answer.status_code)


# --- Registrations


def _register(token: str, hostname: str, address: str = "192.0.2.1") -> Registered:
    return register_worker(
        token=token,
        values={
            "hostname": hostname,
            "os": "linux",
            "version": "1.0.0",
            "auth_mode": "claude_max",
            "max_concurrency": 1,
        },
        actor=Actor("api_key", None, address),
    )


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("hostnames", ["one", "many"])
def test_of_registrations_with_one_token_one_makes_a_worker(
    cast: Cast, hostnames: str, round_: int
) -> None:
    token = cast.mint("wrk")
    workers_before = Worker.objects.count()
    answers = at_once(
        *[partial(_register, token, f"new-{n if hostnames == 'many' else ''}") for n in range(6)]
    )
    registered = [answer for answer in answers if isinstance(answer, Registered)]
    refused = [answer for answer in answers if isinstance(answer, Unauthenticated)]
    assert (len(registered), len(refused)) == (1, 5)
    assert Worker.objects.count() == workers_before + 1
    assert ApiKey.objects.filter(consumed_by=registered[0].worker_id).count() == 1
    assert WorkerCalls(registered[0]).poll().status_code == 200


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_registrations_of_one_host_the_last_replaces_the_others(cast: Cast, round_: int) -> None:
    tokens = [cast.mint("wrk") for _ in range(4)]
    answers = accepted(
        at_once(
            *[
                partial(_register, token, hostname, f"192.0.2.{n}")
                for n, (token, hostname) in enumerate(
                    zip(tokens, ("new", "New", "NEW", "nEw"), strict=True)
                )
            ]
        )
    )
    (worker_id,) = {answer.worker_id for answer in answers}
    statuses = sorted(WorkerCalls(answer).poll().status_code for answer in answers)
    assert statuses == [200, 401, 401, 401]
    registrations = AuditEntry.objects.filter(action="worker.registered", target_id=worker_id)
    replaced = [entry.metadata for entry in registrations if entry.metadata.get("replaced")]
    assert registrations.count() == 4
    assert len(replaced) == 3
    addresses = {f"192.0.2.{n}" for n in range(4)}
    assert all(set(metadata["addresses"]) < addresses for metadata in replaced)
    assert all(len(set(metadata["addresses"])) == 2 for metadata in replaced)


def test_a_token_revoked_at_the_same_moment_registers_nobody(cast: Cast) -> None:
    token = cast.mint("wrk")
    with transaction.atomic():
        execute(
            "UPDATE api_key SET revoked_at = now() WHERE kind = 'wrk' AND consumed_at IS NULL", {}
        )
        registering = Started(partial(_register, token, "new"))
        registering.wait_until_blocked()
    assert isinstance(registering.answer(), Unauthenticated)
    assert not Worker.objects.filter(hostname="new").exists()
