"""The table of a trigger's newest ticks on the trigger's page, and what staff are told about a tick."""

from datetime import tzinfo
from typing import Any

from django.utils.html import format_html

from pipedai.admin.panels import Table
from pipedai.admin.values import NOTHING, in_both_zones, link_to, list_of, state, zone_of
from triggers.admin.errors import beginning_of_error, shown_error
from triggers.explain.due_times import why_no_run
from triggers.models import Run, Tick, Trigger

_SHOWN = 50
_RUN_READ = ("run__status", "run__fault_class", "run__short_message")


def newest_ticks(trigger: Trigger) -> Table:
    """Returns a table of a trigger's newest ticks, each with its reason, or with the state and error of its run.

    The times are in UTC and in the trigger's zone. It takes one query.
    """
    zone = zone_of(trigger.timezone)
    ticks = (
        Tick.objects.filter(trigger=trigger)
        .select_related("run")
        .only("tick_at", "last_tick_at", "decision", "missed_count", "blocked_by", *_RUN_READ)
        .annotate(error_begins=beginning_of_error("run__"))
        .order_by("-tick_at")[:_SHOWN]
    )
    return Table(
        "Newest ticks",
        ("Due", "Decision", "What became of it", "Run"),
        [
            (
                _due(tick, zone),
                state(tick.decision),
                what_became_of(tick),
                link_to(Run, tick.run_id),
            )
            for tick in ticks
        ],
        nothing="None has come due.",
        more=list_of(Tick, trigger=trigger.id),
    )


def what_became_of(tick: Any) -> Any:
    """Returns the state of the run that a tick made, with the run's error, or the reason why the tick made no run."""
    run = tick.run
    if run is None:
        why = why_no_run(tick.decision)
        said = f"{why[0].upper()}{why[1:]}."
        blocker = tick.blocked_by_id
        return format_html("{} It is {}", said, link_to(Run, blocker)) if blocker else said
    error = shown_error(run, tick.error_begins)
    return state(run.status) if error is NOTHING else format_html("{} {}", state(run.status), error)


def _due(tick: Tick, zone: tzinfo) -> Any:
    """Returns when a tick was due. For a row that stands for several due times it returns the first and the last."""
    first = in_both_zones(tick.tick_at, zone)
    if tick.missed_count <= 1:
        return first
    return format_html(
        "{}<br>to {}<br>{} due times",
        first,
        in_both_zones(tick.last_tick_at, zone),
        tick.missed_count,
    )
