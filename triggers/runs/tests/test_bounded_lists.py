"""A page of a filtered list reads no row that it does not show, whatever else the ledger holds."""

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain, combinations
from typing import Any

import pytest
from django.test import RequestFactory
from rest_framework.request import Request

from audit.models import AuditEntry
from pipedai.api.pagination import before, merged
from pipedai.sql import database_now, execute
from testing.probes.plan_nodes import nodes, rows_read
from testing.probes.plans import explained, prefer_indexes
from testing.world.cast import Cast, make_cast
from testing.world.copied_rows import copy_ended_run, copy_row
from testing.world.pools import add_pool
from testing.world.runs import NOON, Runs
from triggers.models import Run, Tick
from triggers.runs.queries import EnvironmentRunFilters
from triggers.schedules.views import TickFilters
from triggers.states import TERMINAL, Decision

# How many runs there are of the wanted kind, and how many times more of each other kind.
_OF_A_KIND, _TIMES_MORE = 25, 6
# How many times more rows may be read than shown. PostgreSQL may read an index that has a few unwanted rows.
_MOST_TIMES = 2
_LIMIT = 25
# How many rows of each kind an environment has got since the last ANALYZE.
_MANY = 500
_ENDED = ",".join(TERMINAL)
# The combinations of filters whose page may read more rows than it shows: the runs of all three, of which a trigger and
# a worker in their pool have hardly others, and the final runs of two, which are few.
_UNBOUNDED = (
    {"poolId", "workerId", "triggerId"},
    {"poolId", "workerId", "final"},
    {"poolId", "triggerId", "final"},
)


@pytest.fixture
def ledger(cast: Cast) -> dict[str, str]:
    """Makes runs of several kinds: those that the filters want, and of each other kind those that differ from these in
    one column. Returns the wanted value of each filter.
    """
    runs = Runs.of(cast, max_retries=0)
    other_trigger = cast.add_trigger()
    other_worker = cast.register("host-2").worker_id
    run_id = runs.ended("failed", faultClass="infra")
    pool_id, other_pool = add_pool(cast), add_pool(cast)
    Run.objects.filter(id=run_id).update(pool=pool_id, pool_from=NOON)
    others = (
        {"trigger_id": f"'{other_trigger}'"},
        {"worker_id": f"'{other_worker}'"},
        {"pool_id": f"'{other_pool}'"},
        {"source": "'api'"},
        {"status": "'timed_out'"},
        {"fault_class": "'client'"},
        {"retried": "true"},
    )
    for nth, other in enumerate(({}, *others * _TIMES_MORE)):
        # The moments at which they were queued are among those of the other kinds.
        queued_at = f"r.queued_at - n * interval '1 minute' - {nth} * interval '1 second'"
        copy_row(Run, run_id, _OF_A_KIND, queued_at=queued_at, **other)
    execute("ANALYZE run", {})
    return {
        "workerId": str(cast.worker.worker_id),
        "triggerId": str(runs.trigger_id),
        "poolId": str(pool_id),
        "status": "failed",
        "faultClass": "infra",
        "source": "manual",
        "final": "true",
    }


def test_a_page_of_runs_reads_only_the_runs_that_it_shows(
    cast: Cast, ledger: dict[str, str]
) -> None:
    """The list is filtered by each combination of at most three filters, and the page begins in the list's middle.

    It has ended runs only. Unfinished runs are few, so PostgreSQL may read them all. No index is for what _UNBOUNDED
    has, so that these combinations are left out.
    """
    prefer_indexes()
    place = (NOON - timedelta(minutes=5), cast.environment.id)
    wanted = [
        {"status": _ENDED, **{name: ledger[name] for name in names}}
        for names in _subsets(tuple(ledger))
        if not any(each <= set(names) for each in _UNBOUNDED)
    ]
    # The runs of a pool in all states are in parts, too.
    for sent in (*wanted, {"poolId": ledger["poolId"]}):
        asked = Request(RequestFactory().get("/", sent))
        filters = EnvironmentRunFilters.read_for(cast.environment.id, asked)
        _check_bounds(filters.parts, "queued_at", place, tuple(sent))


def test_a_page_of_a_trigger_and_a_worker_reads_no_runs_that_only_one_of_them_has(
    cast: Cast,
) -> None:
    """Of their rare runs, each has many without the other. PostgreSQL expects few of all three."""
    run_id = Runs.of(cast).ended("succeeded")
    trigger_id, worker_id = Run.objects.values_list("trigger_id", "worker_id").get(id=run_id)
    rare = {"status": "'timed_out'", "source": "'api'", "fault_class": "'client'"}
    of_another_trigger = {"trigger_id": f"'{cast.trigger_id}'"}
    copy_ended_run(run_id, 1_000)
    copy_ended_run(run_id, 1_000, **of_another_trigger)
    copy_ended_run(run_id, 5, **rare)
    copy_ended_run(run_id, 300, **rare, **of_another_trigger)
    copy_ended_run(run_id, 300, **rare, worker_id=f"'{cast.register('host-2').worker_id}'")
    execute("ANALYZE run", {})
    prefer_indexes()
    sent = {"triggerId": str(trigger_id), "workerId": str(worker_id), "status": "timed_out"}
    asked = Request(RequestFactory().get("/", sent))
    filters = EnvironmentRunFilters.read_for(cast.environment.id, asked)
    _check_bounds(filters.parts, "queued_at", None, tuple(sent))


def test_what_is_read_of_an_environment_that_is_new_is_what_is_shown(committed_cast: Cast) -> None:
    """PostgreSQL has seen the rows of another environment alone, which are nearly all of one kind."""
    cast = committed_cast  # What ANALYZE notes goes with a database of the test's own.
    others = Runs.of(make_cast())
    copy_ended_run(others.ended(), 100)
    copy_ended_run(others.ended("failed", faultClass="client"), 5)
    execute("ANALYZE run, audit_entry", {})
    runs = Runs.of(cast)
    ended, queued = runs.ended("failed", faultClass="infra"), Runs(cast, cast.trigger_id).queue()
    copy_ended_run(ended, _MANY)
    copy_ended_run(ended, _MANY, worker_id=f"'{cast.register('host-2').worker_id}'")
    copy_row(Run, queued, _MANY, queued_at="r.queued_at - n * interval '1 second'")
    entry = runs.audited(queued)[-1]
    copy_row(AuditEntry, entry.id, _MANY, created_at="r.created_at + n * interval '1 microsecond'")
    environment, trigger = f"environments/{cast.environment.id}", f"triggers/{runs.trigger_id}"
    trigger_id, worker = str(runs.trigger_id), {"workerId": str(cast.worker.worker_id)}
    last_day = (database_now() - timedelta(hours=20)).isoformat()
    for path, query in (
        (f"{environment}/runs", {"status": "queued"}),
        (f"{environment}/runs", {"status": "failed"}),
        (f"{environment}/runs", {"status": "canceled"}),
        (f"{environment}/runs", {"final": "true"}),
        (f"{environment}/runs", {"source": "manual"}),
        (f"{environment}/runs", {"faultClass": "infra"}),
        (f"{environment}/runs", worker),
        (f"{environment}/runs", {**worker, "status": "failed"}),
        (f"{environment}/runs", {**worker, "status": "running", "triggerId": trigger_id}),
        (f"{trigger}/runs", {}),
        (f"{trigger}/runs", {"status": "running"}),
        (f"{trigger}/runs", {"source": "manual"}),
        (f"{environment}/audit-log", {}),
        (f"{environment}/audit-log", {"action": "run.claimed"}),
        (f"{environment}/runs", {"endedFrom": last_day}),
        (f"{environment}/stats", {"groupBy": "day", "from": last_day}),
    ):
        with explained(("SELECT", "(SELECT", "WITH")) as plans:
            sent: dict[str, Any] = {**query, "limit": _LIMIT}
            response = cast.client(cast.admin).get(f"/api/v1/{path}", sent)
        assert response.status_code == 200, response.content
        # For each run or entry a few other rows are read, such as its trigger. The sums are of 40 runs.
        assert plans.rows_of_all_scans < _MANY, (path, query)


def test_a_page_of_ticks_reads_no_ticks_of_other_decisions_also_of_a_trigger_that_is_new(
    cast: Cast,
) -> None:
    """PostgreSQL has seen a tick of another trigger alone, so it expects few of this one."""
    tick = Tick(
        environment=cast.environment,
        trigger_id=cast.trigger_id,
        tick_at=NOON,
        last_tick_at=NOON,
        decision=Decision.SKIPPED_OVERLAP,
    )
    tick.save(force_insert=True)
    execute("ANALYZE tick", {})
    at = dict.fromkeys(("tick_at", "last_tick_at"), "r.tick_at - n * interval '1 minute'")
    new = cast.add_trigger()
    copy_row(Tick, tick.id, 250, trigger_id=f"'{new}'", **at)
    prefer_indexes()
    times = {"from": (NOON - timedelta(hours=5)).isoformat(), "to": NOON.isoformat()}
    query = {"decision": Decision.SKIPPED_MISSED, **times}
    with explained('SELECT "tick"') as plans:
        response = cast.client(cast.viewer).get(f"/api/v1/triggers/{new}/ticks", query)
    assert response.json()["items"] == []
    assert plans.rows_read("tick") == 0


def test_a_page_of_ticks_reads_only_the_ticks_that_it_shows(cast: Cast) -> None:
    run_id = Runs.of(cast).running()
    Tick.objects.bulk_create(
        Tick(
            environment=cast.environment,
            trigger_id=cast.trigger_id,
            tick_at=at,
            last_tick_at=at,
            decision=decision,
            run_id=run_id if decision == Decision.FIRED else None,
            missed_count=int(decision in (Decision.SKIPPED_MISSED, Decision.SKIPPED_PAUSED)),
        )
        for n in range(_OF_A_KIND)
        for m, decision in enumerate(Decision)
        for at in [NOON - timedelta(minutes=n, seconds=m)]
    )
    execute("ANALYZE tick", {})
    prefer_indexes()
    times = {"from": (NOON - timedelta(hours=1)).isoformat(), "to": NOON.isoformat()}
    place = (NOON - timedelta(minutes=5), cast.environment.id)
    for decision in Decision:
        for within in ({}, times):
            asked = Request(RequestFactory().get("/", {"decision": decision, **within}))
            filters = TickFilters.read(Tick.objects.filter(trigger_id=cast.trigger_id), asked)
            for where in (None, place):
                _check_bounds(filters.parts, "tick_at", where, (decision, *within))


def _check_bounds(
    parts: list[Any], time_field: str, place: tuple[Any, ...] | None, asked: tuple[str, ...]
) -> None:
    """Executes the statement of a page, and checks that it reads one row more than the page shows, and one of each part
    that the page shows no row of.
    """
    order = (f"-{time_field}", "-id")
    if place is not None:
        parts = [part.filter(before((time_field, "id"), place)) for part in parts]
    found = merged([part.values("id", time_field) for part in parts], order, _LIMIT)
    (plan,) = json.loads(found.explain(analyze=True, format="json"))
    table = parts[0].model._meta.db_table
    read = sum(
        rows_read({**node, "Plans": []})
        for node in nodes(plan["Plan"])
        if node.get("Relation Name") == table and node.get("Index Name") != "run_one_retry"
    )
    shown = plan["Plan"]["Actual Rows"]
    assert shown, f"no rows with {asked}"
    assert read <= _MOST_TIMES * shown + len(parts), (
        f"{read} rows read for {shown} with {asked}: {found.explain()}"
    )


def _subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, count) for count in range(4))
