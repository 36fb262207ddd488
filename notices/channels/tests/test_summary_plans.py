"""A summary reads the due times without a run, and only counts those that made one."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from notices.channels.summaries import _FIRED, _WITHOUT_RUN
from pipedai.sql import database_now, execute, fetch_all, fetch_row
from testing.probes.plan_nodes import nodes
from testing.probes.plans import explained, explained_as_kept, prefer_indexes
from testing.world.cast import Cast
from testing.world.copied_rows import copy_ended_run, copy_row
from testing.world.runs import Runs
from triggers.models import Tick
from triggers.states import Decision

_FIRED_TICKS, _SKIPPED = 2_000, 7


@pytest.fixture
def window(committed_cast: Cast) -> dict[str, Any]:
    """A day in which many due times made a run that has ended, and few made none; and as much before it."""
    now = database_now()
    runs = Runs.of(committed_cast, schedule="* * * * *")
    runs.now = now - timedelta(hours=1)
    run_id = runs.ended()
    second = "(n - 1) * interval '1 minute'"
    at = dict.fromkeys(
        ("tick_at", "last_tick_at", "decided_at"), f"now() - interval '1 second' - {second}"
    )
    fired = Tick.objects.create(
        environment=committed_cast.environment,
        trigger_id=runs.trigger_id,
        tick_at=now + timedelta(hours=1),
        last_tick_at=now + timedelta(hours=1),
        decision=Decision.FIRED,
        run_id=run_id,
    )
    copy_row(Tick, fired.id, _FIRED_TICKS, **at)
    copy_row(
        Tick, fired.id, _SKIPPED, decision="'skipped_overlap'", run_id="NULL",
        **{name: f"{moment} - interval '30 seconds'" for name, moment in at.items()},
    )  # fmt: skip
    times = ("available_at", "queued_at", "claimed_at", "started_at", "ended_at")
    moments = dict.fromkeys(times, f"now() - interval '1 second' - {second}")
    # If all ended alike, an index with the ends would seem no better to PostgreSQL than one of the times alone.
    ends = {
        "status": "(ARRAY['succeeded', 'failed', 'timed_out', 'canceled'])[1 + mod(n, 4)]",
        "fault_class": "(ARRAY['none', 'infra', 'client', 'none'])[1 + mod(n, 4)]",
    }
    moments |= {"scheduled_for": f"now() - {second}", "source": "'schedule'"}
    copy_ended_run(run_id, _FIRED_TICKS, **moments, **ends)
    execute("VACUUM ANALYZE", {})
    return {
        "environment_id": committed_cast.environment.id,
        "since": now - timedelta(days=1),
        "until": now + timedelta(minutes=1),
    }


def test_due_times_that_made_a_run_are_not_read(window: dict[str, Any]) -> None:
    with explained(("SELECT",)) as plans:
        (row,) = fetch_all(_WITHOUT_RUN, window)
    assert (row["decision"], row["n"]) == (Decision.SKIPPED_OVERLAP, _SKIPPED)
    for each in (plans, explained_as_kept(_WITHOUT_RUN, window)):
        assert each.rows_read("tick") == _SKIPPED


def test_they_are_counted_by_an_index_that_has_none_before_the_window(
    window: dict[str, Any],
) -> None:
    a_day = 24 * 60
    with transaction.atomic():
        prefer_indexes()
        with explained(("SELECT",)) as plans:
            assert abs(fetch_row(_FIRED, window)["n"] - a_day) <= 1
        kept = explained_as_kept(_FIRED, window)
    for each in (plans, kept):
        assert each.rows_read("run") <= a_day + 1
        (plan,) = each.plans
        scans = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
        assert "run_of_source" in scans
        assert "run_listed" not in scans
