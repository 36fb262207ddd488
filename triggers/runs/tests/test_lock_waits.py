"""Conflicting calls wait for each other, and the one that waited acts on the new state (docs/run-lifecycle.md).

In each test, one call holds its locks in an open transaction; the other is started and observed to wait.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from pipedai.api.errors import ApiError
from pipedai.events import SYSTEM
from pipedai.sql import execute
from testing.processes.racing import Started, accepted, at_once
from testing.world.cast import register
from testing.world.runs import Runs
from triggers.models import Run, Trigger
from triggers.runs import lifecycle
from triggers.runs.lifecycle import Refused
from triggers.services import TRIGGERS


@pytest.fixture
def runs(committed_runs: Runs) -> Runs:
    return committed_runs


def _assign(runs: Runs, worker_id: UUID | None) -> None:
    _update(runs, worker_id=worker_id)


def _update(runs: Runs, **values: Any) -> None:
    TRIGGERS.update(runs.trigger_id, values=values, actor=SYSTEM)


def _fail(runs: Runs, run_id: UUID) -> Any:
    return runs.complete(run_id, "failed", faultClass="infra")


CHANGES = pytest.mark.parametrize(
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


@CHANGES
def test_a_retry_waits_for_a_change_of_its_trigger_and_heeds_it(
    runs: Runs, change: Any, expected: Any
) -> None:
    run_id = runs.running()
    other = runs.cast.register("host-2").worker_id
    with transaction.atomic():
        _update(runs, **change(other))
        ending = Started(partial(_fail, runs, run_id))
        ending.wait_until_blocked()
    assert not isinstance(ending.answer(), ApiError)
    retry = runs.retry_of(run_id)
    assert (retry and (retry["status"], retry["worker_id"])) == expected(other)


@CHANGES
def test_a_scheduler_does_not_wait_for_a_change_of_a_trigger_and_heeds_it_afterwards(
    runs: Runs, change: Any, expected: Any
) -> None:
    changing, other = runs.running(), runs.cast.register("host-2").worker_id
    elsewhere = Runs(runs.cast, runs.cast.add_trigger(worker_id=other), runs.now)
    lost = elsewhere.running(worker_id=other)
    runs.now = max(runs.stored(each)["lease_expires_at"] for each in (changing, lost))
    with transaction.atomic():
        _update(runs, **change(other))
        # The call would wait until its time-out if the change kept it waiting.
        assert at_once(partial(runs.expire, limit=1)) == [1]
        assert runs.stored(lost)["ended_by"] == "lease"
    assert runs.expire() == 1
    retry = runs.retry_of(changing)
    assert (retry and (retry["status"], retry["worker_id"])) == expected(other)


@pytest.mark.parametrize("held", [True, False])
def test_lost_and_late_runs_of_an_environment_keep_no_other_one_waiting(
    runs: Runs, held: bool
) -> None:
    cast = runs.cast
    execute("UPDATE worker SET max_concurrency = 5", {})
    execute("UPDATE trigger SET start_deadline_seconds = 60", {})
    many = [runs.running() if held else runs.queue() for _ in range(4)]
    worker = register(cast.mint_elsewhere("wrk"), "host-9")
    others = Runs.of(replace(cast, environment=cast.strange_environment, worker=worker))
    execute("UPDATE trigger SET start_deadline_seconds = 60", {})
    one = others.running() if held else others.queue()
    runs.now = max(runs.now, others.now) + timedelta(days=1)
    expire = lifecycle.expire_runs if held else lifecycle.expire_queued_runs
    assert expire(limit=2, now=runs.now) == 2
    assert others.stored(one)["ended_at"] is not None
    assert [runs.stored(each)["ended_at"] is None for each in many] == [False, True, True, True]


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
        TRIGGERS.delete(runs.trigger_id, actor=SYSTEM)
        queueing = Started(runs.queue)
        queueing.wait_until_blocked()
    answer = queueing.answer()
    assert isinstance(answer, ApiError)
    assert answer.status_code == 404
    assert not Run.objects.exists()


def test_a_deletion_waits_for_a_new_run_and_is_refused(runs: Runs) -> None:
    with transaction.atomic():
        runs.queue()
        deleting = Started(partial(TRIGGERS.delete, runs.trigger_id, actor=SYSTEM))
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
    assert all(isinstance(report.answer(), Refused) for report in both)
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
    """Pauses new connections inside a statement with SKIP LOCKED, after its snapshot and before its locks.

    At that point the statement calls the clock, and this replaces the clock by one that waits.
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
