"""Races on real connections: of two that meet, exactly one consistent outcome (SPEC §6)."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from audit.models import AuditEntry
from pipedai.api.errors import ApiError
from pipedai.events import SYSTEM, Actor
from pipedai.sql import execute
from testing.racing import Started, accepted, at_once
from testing.runs import Runs
from triggers import lifecycle
from triggers.idempotency import run_trigger
from triggers.models import Run, Trigger
from triggers.services import delete_trigger, update_trigger
from triggers.states import Source
from workspaces.models import Membership

ROUNDS = range(4)


@pytest.fixture
def runs(committed_runs: Runs) -> Runs:
    return committed_runs


def _statuses(answers: list[Any]) -> list[int]:
    """The answers' statuses: 200 for what the lifecycle gave, the refusal's for what it raised."""
    return sorted(answer.status_code if isinstance(answer, ApiError) else 200 for answer in answers)


# --- All at once


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
    """No deadlock, whatever meets: at_once raises what is no answer of ours."""
    execute("UPDATE worker SET max_concurrency = 9", {})
    other = runs.cast.register("host-2").worker_id
    run_ids = [runs.running() for _ in range(3)]
    runs.now = runs.stored(run_ids[0])["lease_expires_at"]
    at_once(
        *[partial(runs.complete, run_id, "failed", faultClass="infra") for run_id in run_ids],
        *[partial(runs.cancel, run_id) for run_id in run_ids],
        *[partial(runs.heartbeat, run_id) for run_id in run_ids],
        runs.expire,
        runs.expire,
        runs.queue,
        partial(_assign, runs, other),
        partial(_update, runs, enabled=False),
    )
    for run_id in run_ids:
        run, retry = runs.stored(run_id), runs.retry_of(run_id)
        assert run["ended_at"] is not None
        assert len(runs.deliveries(run_id)) in (1, 2)
        assert retry is None or retry["worker_id"] in (runs.cast.worker.worker_id, other)
    queued = Run.objects.filter(status="queued").values_list("worker_id", flat=True)
    assert set(queued) <= {other}, "a queued run was left behind with the old worker"


# --- One after the other, as the locks decide


def _assign(runs: Runs, worker_id: UUID | None) -> None:
    _update(runs, worker_id=worker_id)


def _update(runs: Runs, **values: Any) -> None:
    update_trigger(trigger_id=runs.trigger_id, values=values, actor=SYSTEM)


def _fail(runs: Runs, run_id: UUID) -> Any:
    return runs.complete(run_id, "failed", faultClass="infra")


def _lose(runs: Runs, run_id: UUID) -> Any:
    return runs.expire()


@pytest.mark.parametrize("end", [_fail, _lose], ids=["reported", "lost"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda other: {"worker_id": other}, lambda other: ("queued", other), id="reassigned"
        ),
        pytest.param(
            lambda other: {"worker_id": None}, lambda other: ("queued", None), id="set to none"
        ),
        pytest.param(lambda other: {"enabled": False}, lambda other: None, id="disabled"),
    ],
)
def test_a_retry_waits_for_a_change_of_its_trigger_and_heeds_it(
    runs: Runs, end: Callable[[Runs, UUID], Any], change: Any, expected: Any
) -> None:
    run_id = runs.running()
    other = runs.cast.register("host-2").worker_id
    runs.now = runs.stored(run_id)["lease_expires_at"]
    with transaction.atomic():
        _update(runs, **change(other))
        ending = Started(partial(end, runs, run_id))
        ending.wait_until_blocked()
    assert not isinstance(ending.answer(), ApiError)
    retry = runs.retry_of(run_id)
    assert (retry and (retry["status"], retry["worker_id"])) == expected(other)


def test_a_reassignment_waits_for_a_retry_and_takes_it_along(runs: Runs) -> None:
    run_id = runs.running()
    other = runs.cast.register("host-2").worker_id
    with transaction.atomic():
        _fail(runs, run_id)
        assigning = Started(partial(_assign, runs, other))
        assigning.wait_until_blocked()
    assert assigning.answer() is None
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert retry["worker_id"] == other


def test_a_reassignment_waits_for_a_new_run_and_takes_it_along(runs: Runs) -> None:
    other = runs.cast.register("host-2").worker_id
    with transaction.atomic():
        run_id = runs.queue()
        assigning = Started(partial(_assign, runs, other))
        assigning.wait_until_blocked()
    assert assigning.answer() is None
    assert runs.stored(run_id)["worker_id"] == other


def test_a_new_run_waits_for_a_change_of_its_trigger_and_heeds_it(runs: Runs) -> None:
    other = runs.cast.register("host-2").worker_id
    with transaction.atomic():
        _update(runs, worker_id=other, prompt="Another prompt.", model="another-model")
        queueing = Started(runs.queue)
        queueing.wait_until_blocked()
    run_id = queueing.answer()
    assert not isinstance(run_id, ApiError), run_id
    run = runs.stored(run_id)
    assert (run["worker_id"], run["model"]) == (other, "another-model")
    assert Run.objects.get(id=run_id).revision.prompt == "Another prompt."


def test_no_run_is_queued_for_a_trigger_that_is_being_deleted(runs: Runs) -> None:
    with transaction.atomic():
        delete_trigger(trigger_id=runs.trigger_id, actor=SYSTEM)
        queueing = Started(runs.queue)
        queueing.wait_until_blocked()
    answer = queueing.answer()
    assert isinstance(answer, ApiError)
    assert answer.status_code == 404
    assert not Run.objects.exists()


def test_a_deletion_waits_for_a_new_run_and_is_refused(runs: Runs) -> None:
    with transaction.atomic():
        runs.queue()
        deleting = Started(partial(delete_trigger, trigger_id=runs.trigger_id, actor=SYSTEM))
        deleting.wait_until_blocked()
    answer = deleting.answer()
    assert isinstance(answer, ApiError)
    assert answer.status_code == 409


def test_two_changes_of_a_trigger_at_the_same_moment_both_happen(runs: Runs) -> None:
    with transaction.atomic():
        _update(runs, prompt="Another prompt.")
        updating = Started(partial(_update, runs, name="Another name"))
        updating.wait_until_blocked()
    answer = updating.answer()
    assert answer is None, answer
    trigger = Trigger.objects.select_related("revision").get(id=runs.trigger_id)
    assert (trigger.name, trigger.revision.prompt) == ("Another name", "Another prompt.")


def test_a_late_result_sent_twice_is_kept_and_audited_once(runs: Runs) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    with transaction.atomic():
        execute("SELECT FROM run WHERE id = %(id)s FOR UPDATE", {"id": run_id})
        both = [Started(partial(runs.complete, run_id, "succeeded")) for _ in range(2)]
        for report in both:
            report.wait_until_blocked()
    assert _statuses([report.answer() for report in both]) == [409, 409]
    assert runs.actions(run_id).count("run.late-result") == 1


def test_a_late_result_sent_twice_is_answered_twice_as_stored(runs: Runs) -> None:
    run_id = runs.lost()
    with transaction.atomic():
        execute("SELECT FROM run WHERE id = %(id)s FOR UPDATE", {"id": run_id})
        report = partial(runs.complete, run_id, "failed", errorMessage="Broken.")
        both = [Started(report) for _ in range(2)]
        for one in both:
            one.wait_until_blocked()
    answers = accepted([one.answer() for one in both])
    assert [answer["error_message"] for answer in answers] == ["Broken."] * 2
    assert len(runs.deliveries(run_id)) == 2


def test_a_cancel_requested_while_the_run_is_given_up_counts(runs: Runs) -> None:
    runs.now -= timedelta(hours=1)
    run_id = runs.running()
    with _paused_before_locking():
        expiring = Started(lifecycle.expire_runs)
        expiring.wait_until_blocked()
        runs.cancel(run_id)
    assert expiring.answer() == 1
    assert runs.stored(run_id)["status"] == "canceled"


@contextlib.contextmanager
def _paused_before_locking() -> Iterator[None]:
    """Stops new connections inside a statement that skips locked rows, after it has taken its
    snapshot and before it has locked any: there it asks for the time, and our clock waits.
    """
    execute("CREATE SCHEMA paused", {})
    execute(
        """
        CREATE FUNCTION paused.statement_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
        BEGIN
            IF current_query() LIKE '%%SKIP LOCKED%%' THEN
                PERFORM pg_advisory_xact_lock(1);
            END IF;
            RETURN pg_catalog.statement_timestamp();
        END $$
        """,
        {},
    )
    with connection.cursor() as cursor:
        database = connection.ops.quote_name(connection.settings_dict["NAME"])
        cursor.execute(f"ALTER DATABASE {database} SET search_path = paused, public, pg_catalog")
    execute("SELECT pg_advisory_lock(1)", {})
    try:
        yield
    finally:
        execute("SELECT pg_advisory_unlock(1)", {})


def test_what_another_scheduler_or_the_worker_holds_is_left_to_them(runs: Runs) -> None:
    execute("UPDATE worker SET max_concurrency = 2", {})
    held, free = runs.running(), runs.running()
    runs.now = runs.stored(free)["lease_expires_at"]
    with transaction.atomic():
        execute("SELECT FROM run WHERE id = %(id)s FOR UPDATE", {"id": held})
        assert at_once(runs.expire) == [1]
    assert runs.stored(held)["status"] == "running"
    assert runs.stored(free)["status"] == "failed"
    assert runs.expire() == 1


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
