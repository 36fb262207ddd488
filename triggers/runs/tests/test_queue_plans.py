"""Polls, claims of the next run and explanations read what they return, however long the queue is and whatever holds
its runs back. PostgreSQL may know the tables' statistics, or not yet, as after a burst.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from pipedai.sql import database_now, execute, fetch_all
from testing.probes.plans import Plans, explained
from testing.world.budgets import add_budget
from testing.world.cast import Cast
from testing.world.connections import add_oauth_connection
from testing.world.copied_rows import copy_ended_run
from testing.world.many_triggers import add_triggers
from testing.world.pools import add_pool
from testing.world.runs import RULES, Runs, allow
from triggers.explain.runs import explain_run
from triggers.explain.waiting import MOST_COUNTED
from triggers.models import Run, Trigger
from triggers.runs.handout import MOST_AT_ONCE, choose_runs
from triggers.runs.queueing import check_queue_room
from workers.models import PoolMember, Worker

# How many runs wait, and of how many triggers.
_QUEUED, _TRIGGERS = 2_400, 200
_MEMBERS, _OTHER_WORKERS = 50, 1_500

# Copies a queued run to each of the triggers, `times` times. The copies are due one second after another.
_COPY_RUN = """
INSERT INTO run ({columns})
SELECT {values}
FROM run r, (SELECT *, row_number() OVER (ORDER BY id) AS nth FROM trigger WHERE id = ANY(%(trigger_ids)s)) t,
    generate_series(1, %(times)s) n
WHERE r.id = %(run_id)s
"""
_LATER = "r.{} + (n * %(triggers)s + t.nth) * interval '1 second'"
_QUEUED_ANEW = {
    "id": "gen_random_uuid()", "trigger_id": "t.id", "revision_id": "t.revision_id",
    "available_at": _LATER.format("available_at"), "pool_from": _LATER.format("pool_from"),
}  # fmt: skip
# Lets another worker hold the first runs, which are one of each trigger.
_HOLD = """
UPDATE run r SET worker_id = %(worker_id)s, status = 'claimed', slot = first.nth, trigger_slot = 1,
    claimed_at = r.queued_at, lease_expires_at = r.queued_at, deadline_at = r.queued_at
FROM (SELECT id, row_number() OVER (ORDER BY available_at) AS nth FROM run) first
WHERE first.id = r.id AND first.nth <= %(triggers)s
"""
_COPY_WORKER = """
INSERT INTO worker ({columns}) SELECT {values} FROM worker w, generate_series(1, %(count)s) n WHERE w.id = %(id)s
RETURNING id
"""


@pytest.fixture
def cast(committed_cast: Cast) -> Cast:
    """The sizes of tables that ANALYZE notes outlive a transaction, so they go with a database of the test's own."""
    return committed_cast


@pytest.mark.parametrize("pooled", [False, True], ids=["own", "pool"])
def test_a_long_queue_is_not_read_to_its_end(
    cast: Cast, pooled: bool, subtests: pytest.Subtests
) -> None:
    worker_id = cast.worker.worker_id
    homes = {"worker_id": None, "pool_id": add_pool(cast, worker_id)} if pooled else {}
    last = _queue(cast, [cast.add_trigger(**homes)], _QUEUED)
    allow(worker_id, MOST_AT_ONCE)
    Worker.objects.filter(id=worker_id).update(last_seen_at=database_now())
    _others_wait(cast)
    for statistics in _before_and_after_analyze():
        with subtests.test(statistics):
            with _explained() as plans:
                assert _poll(worker_id) == MOST_AT_ONCE
            assert plans.rows_read("run") <= 4 * MOST_AT_ONCE
            with _explained() as plans:
                assert _poll(worker_id, only_first=True) == 1
            assert plans.rows_read("run") <= 2 * MOST_AT_ONCE
            with _explained() as plans:
                assert _place(last) == MOST_COUNTED + 1
            assert plans.rows_read("run") <= MOST_COUNTED + 10 * MOST_AT_ONCE


def test_a_poll_passes_over_runs_that_cannot_go_out_without_looking_at_each(
    cast: Cast, subtests: pytest.Subtests
) -> None:
    add_triggers(cast, _TRIGGERS - 1, name="One of many")
    many = Trigger.objects.filter(name="One of many")
    ids = list(many.values_list("id", flat=True))
    _queue(cast, ids, _QUEUED)
    for statistics in _before_and_after_analyze():
        with subtests.test(statistics):
            _a_poll_passes_over_them(cast, many)


def _a_poll_passes_over_them(cast: Cast, many: QuerySet[Trigger]) -> None:
    worker_id = cast.worker.worker_id
    with _changed():
        add_budget(cast, limit_usd="0")
        with _explained() as plans:
            assert _poll(worker_id) == 0
        assert plans.rows_read("run") <= MOST_AT_ONCE, "a budget is used up"
    with _changed():
        add_budget(cast, limit_usd="1", reserve_usd="2")
        with _explained() as plans:
            assert _poll(worker_id) == 0
        assert plans.rows_read("budget") <= MOST_AT_ONCE, "a budget is nearly used up"
        assert plans.rows_read("trigger") <= 5 * _TRIGGERS
    with _changed():
        many.update(max_concurrent_runs=1)
        held = {"worker_id": cast.register("holder").worker_id, "triggers": _TRIGGERS}
        assert execute(_HOLD, held) == _TRIGGERS
        with _explained() as plans:
            assert _poll(worker_id) == 0
        assert plans.rows_read("trigger") <= 5 * _TRIGGERS, "all triggers are full"
        assert plans.rows_read("run") < _QUEUED, "the queue is not read to its end"
        last = Runs(cast, cast.add_trigger()).queue()
        Run.objects.filter(id=last).update(available_at=Now())
        with _explained() as plans:
            assert _poll(worker_id) == 1, "the last of the queue may go out"
        assert plans.rows_read("run") < _QUEUED
    with _changed():
        headers = Trigger.objects.get(id=cast.add_trigger(mcp_headers={"X-Key": "planted-header"}))
        many.update(mcp_headers=headers.mcp_headers, mcp_key_id=headers.mcp_key_id)
        with _explained() as plans:
            assert _poll(worker_id, approved=False) == 0
        assert plans.rows_read("trigger") <= 5 * _TRIGGERS, "the worker is not approved"
        assert plans.rows_read("run") < _QUEUED
    with _changed():
        connection = add_oauth_connection(cast, since=database_now() - timedelta(hours=1))
        many.update(connection=connection, mcp_url=connection.mcp_url)
        with _explained() as plans:
            assert _poll(worker_id) == 0
        assert plans.rows_read("trigger") <= 5 * _TRIGGERS, "a connection has no fresh token"
        assert plans.rows_read("connection") <= _TRIGGERS
        assert plans.rows_read("run") < _QUEUED


def test_a_poll_looks_up_only_triggers_that_have_what_its_worker_lacks(
    cast: Cast, subtests: pytest.Subtests
) -> None:
    """The worker takes no approvals and is not approved for secret headers."""
    worker_id = cast.worker.worker_id
    add_triggers(cast, _TRIGGERS - 1, name="One of many")
    many = Trigger.objects.filter(name="One of many")
    _queue(cast, list(many.values_list("id", flat=True)), _QUEUED)
    allow(worker_id, MOST_AT_ONCE)
    for statistics in _before_and_after_analyze():
        for kept in (False, True):
            with subtests.test(statistics, kept=kept):
                analysed = statistics == "analysed"
                _a_poll_looks_up_few_triggers(worker_id, many, kept, analysed=analysed)


def _a_poll_looks_up_few_triggers(
    worker_id: UUID, many: QuerySet[Trigger], kept: bool, *, analysed: bool
) -> None:
    with _explained(kept=kept) as plans:
        assert _poll(worker_id, approved=False) == MOST_AT_ONCE
    # PostgreSQL looks up the triggers of the first runs, and may then read all triggers to join those of the answer.
    assert plans.rows_read("trigger") <= MOST_AT_ONCE + _TRIGGERS + 1, "no trigger has any"
    with _changed():
        many.update(approvals=RULES)
        if analysed:
            _analyze()
        with _explained(kept=kept) as plans:
            assert _poll(worker_id) == 0
        # Once to find those with approvals, and once to find others whose runs may go out. Until they are vacuumed, the
        # rows before the change count, too.
        assert plans.rows_read("trigger") <= 3 * (_TRIGGERS + 1), "all triggers have approvals"
        assert plans.rows_read("run") < _QUEUED


def test_an_explanation_reads_no_rows_of_others(cast: Cast, subtests: pytest.Subtests) -> None:
    """The run's worker is one of a pool of fifty, and the run waits behind one that none of them has room for."""
    members = _copy_workers(cast, _MEMBERS, environment_id=cast.environment.id)
    pool_id = add_pool(cast, cast.worker.worker_id)
    PoolMember.objects.bulk_create(
        PoolMember(environment=cast.environment, pool_id=pool_id, worker_id=worker_id)
        for worker_id in members
    )
    Worker.objects.update(last_seen_at=database_now())
    last = _queue(cast, [cast.add_trigger(worker_id=None, pool_id=pool_id)], 3 * _MEMBERS)
    _others_wait(cast)
    _copy_workers(cast, _OTHER_WORKERS, environment_id=cast.strange_environment.id)
    for statistics in _before_and_after_analyze():
        with subtests.test(statistics):
            with _explained() as plans:
                assert _place(last) == 3 * _MEMBERS
            assert plans.rows_read("worker") < _OTHER_WORKERS
            assert plans.rows_read("run") < _QUEUED


def test_a_new_run_counts_neither_ended_runs_nor_queues_of_others(cast: Cast) -> None:
    copy_ended_run(Runs.of(cast).ended(), _QUEUED)
    _others_wait(cast)
    _analyze()
    with _explained() as plans:
        check_queue_room(cast.trigger_id)
    assert plans.rows_read("run") == 0


def _queue(cast: Cast, trigger_ids: list[UUID], count: int) -> UUID:
    """Queues so many runs of these triggers, and returns the last one."""
    first = Runs(cast, trigger_ids[0]).queue()
    columns = [str(field.column) for field in Run._meta.concrete_fields]
    values = [_QUEUED_ANEW.get(column, f"r.{column}") for column in columns]
    more = {
        "trigger_ids": trigger_ids, "triggers": len(trigger_ids),
        "times": count // len(trigger_ids), "run_id": first,
    }  # fmt: skip
    execute(_COPY_RUN.format(columns=", ".join(columns), values=", ".join(values)), more)
    Run.objects.filter(id=first).delete()
    return Run.objects.filter(trigger_id__in=trigger_ids).latest("available_at").id


def _others_wait(cast: Cast) -> None:
    """Queues as many runs in the strange environment."""
    strange = replace(cast, environment=cast.strange_environment, owner=cast.stranger)
    theirs = strange.register("theirs").worker_id
    _queue(strange, [strange.add_trigger(worker_id=theirs)], _QUEUED)


def _copy_workers(cast: Cast, count: int, *, environment_id: UUID) -> list[UUID]:
    anew = {
        "id": "gen_random_uuid()", "environment_id": "%(environment_id)s", "hostname": "w.hostname || n",
        "token_digest": "sha256(gen_random_uuid()::text::bytea)",
    }  # fmt: skip
    columns = [str(field.column) for field in Worker._meta.concrete_fields]
    values = [anew.get(column, f"w.{column}") for column in columns]
    statement = _COPY_WORKER.format(columns=", ".join(columns), values=", ".join(values))
    params = {"count": count, "id": cast.worker.worker_id, "environment_id": environment_id}
    return [row["id"] for row in fetch_all(statement, params)]


def _before_and_after_analyze() -> Iterator[str]:
    """Yields what PostgreSQL knows of the tables: nothing yet, and then their statistics."""
    yield "burst"
    _analyze()
    yield "analysed"


def _analyze() -> None:
    execute("ANALYZE run, trigger, trigger_revision, worker, pool_member", {})


def _explained(*, kept: bool = False) -> AbstractContextManager[Plans]:
    return explained(("SELECT", "WITH"), kept=kept)


@contextmanager
def _changed() -> Iterator[None]:
    """Undoes at its end what the block changes."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _poll(worker_id: UUID, *, approved: bool = True, only_first: bool = False) -> int:
    limits: Any = {"capacity": MOST_AT_ONCE, "approved": approved}
    return len(choose_runs(worker_id=worker_id, **limits, only_first=only_first))


def _place(run_id: UUID) -> int | None:
    told = explain_run(run_id)
    assert told is not None
    (reason,) = told.waiting_for
    return reason.place
