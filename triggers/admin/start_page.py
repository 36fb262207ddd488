"""The start page's figures and charts about runs, deliveries and schedulers, and the admin pages of processes."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django.contrib.admin import register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.fields import Declared, column
from pipedai.admin.site import site
from pipedai.admin.start_page import (
    MOST_COUNTED,
    Chart,
    Figure,
    Series,
    show_chart,
    show_figures,
    shown_count,
)
from pipedai.admin.values import list_of, page_of, span, spoken
from pipedai.sql import database_now, fetch_all, fetch_row
from triggers.models import Delivery, Run, SchedulerHeartbeat, WebHeartbeat
from triggers.schedules.heartbeats import ALIVE_WITHIN
from triggers.states import TERMINAL, Status


class HeartbeatAdmin(StaffModelAdmin):
    icon = "ecg_heart"
    group = "Service"
    columns = ("host", "Process", "started_at", "Last beat")
    facts: ClassVar[Declared] = (
        "host",
        ("Process", column("pid", str)),
        "started_at",
        ("Last beat", "beat_at"),
        "id",
    )


@register(SchedulerHeartbeat, site=site)
class SchedulerHeartbeatAdmin(HeartbeatAdmin):
    when_empty = "No scheduler has ever been alive: start manage.py runscheduler."


@register(WebHeartbeat, site=site)
class WebHeartbeatAdmin(HeartbeatAdmin):
    when_empty = "No web process has written a heartbeat within the last hour."
    facts = (*HeartbeatAdmin.facts, ("Service reachable since", "reachable_since"))


_HOURS = 24
_DAYS = 14
# The start page shows an alarm when the oldest queued run has waited for longer than `_LONG_QUEUED`, or a delivery has
# been due for longer than `_LONG_DUE`.
_LONG_QUEUED = timedelta(hours=1)
_LONG_DUE = timedelta(minutes=5)

# The counts are quick, because each reads a partial index with only the queued runs or only the pending deliveries.
_WAITING = """
WITH queued AS MATERIALIZED (
    SELECT id, queued_at FROM run WHERE status = 'queued' LIMIT %(counted)s + 1),
pending AS MATERIALIZED (
    SELECT next_attempt_at FROM delivery WHERE status = 'pending' LIMIT %(counted)s + 1)
SELECT statement_timestamp() AS now,
    (SELECT count(*) FROM queued) AS queued,
    (SELECT id FROM queued ORDER BY queued_at LIMIT 1) AS oldest_id,
    (SELECT min(queued_at) FROM queued) AS oldest_at,
    (SELECT count(*) FROM pending) AS pending,
    (SELECT min(next_attempt_at) FROM pending) AS due_at,
    (SELECT count(*) FROM scheduler_heartbeat
        WHERE beat_at > statement_timestamp() - %(alive)s) AS schedulers
"""

# Sums the ended runs of each environment one after the other, because the index `run_ended` begins with the
# environment. The sums come from that index alone, without reading the runs themselves.
_ENDED = """
SELECT ended.at, ended.status, sum(ended.runs)::bigint AS runs, sum(ended.cost_usd) AS cost_usd
FROM environment e CROSS JOIN LATERAL (
    SELECT date_trunc(%(unit)s, r.ended_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS at, r.status, count(*) AS runs,
        sum(r.cost_usd) AS cost_usd
    FROM run r
    WHERE r.environment_id = e.id AND r.ended_at IS NOT NULL
        AND r.ended_at >= %(begin)s
    GROUP BY 1, 2) ended
GROUP BY 1, 2
"""


def waiting_figures() -> list[Figure]:
    """Returns the figures of queued runs, the oldest one's wait, pending deliveries and living schedulers."""
    row = fetch_row(_WAITING, {"counted": MOST_COUNTED, "alive": ALIVE_WITHIN})
    oldest, late = _since(row["oldest_at"], row["now"]), _since(row["due_at"], row["now"])
    return [
        Figure("Runs queued", shown_count(row["queued"]), href=list_of(Run, status=Status.QUEUED)),
        Figure(
            "Oldest queued run", "none" if oldest is None else str(span(oldest)),
            "" if oldest is None else "has waited",
            href=page_of(Run, row["oldest_id"]) if row["oldest_id"] else "",
            is_alarm=oldest is not None and oldest > _LONG_QUEUED,
        ),
        Figure(
            "Deliveries waiting", shown_count(row["pending"]), f"due for {span(late)}" if late else "",
            href=list_of(Delivery, status__exact=Delivery.Status.PENDING),
            is_alarm=late is not None and late > _LONG_DUE,
        ),
        Figure(
            "Schedulers alive", str(row["schedulers"]), href=list_of(SchedulerHeartbeat),
            is_alarm=not row["schedulers"],
        ),
    ]  # fmt: skip


def runs_per_hour(*, now: datetime | None = None) -> Chart:
    hours, found = _ended("hour", _HOURS, now or database_now())
    return Chart(
        "Runs per hour, by outcome (UTC)",
        [hour.strftime("%H:%M UTC") for hour in hours],
        [
            Series(status, spoken(status), [float(found.get((hour, status), {}).get("runs", 0)) for hour in hours])
            for status in TERMINAL
        ],
        nothing="No run has ended in the last 24 hours.",
    )  # fmt: skip


def cost_per_day(*, now: datetime | None = None) -> Chart:
    days, found = _ended("day", _DAYS, now or database_now())
    costs = dict.fromkeys(days, 0.0)
    for (day, _), row in found.items():
        if day in costs:
            costs[day] += float(row["cost_usd"] or 0)
    return Chart(
        "Cost per day of the last 14 days (UTC)",
        [day.strftime("%d %b") for day in days],
        [Series("cost", "cost", list(costs.values()))],
        unit="$",
        nothing="Nothing was spent in the last 14 days.",
    )


def _ended(
    unit: str, count: int, now: datetime
) -> tuple[list[datetime], dict[tuple[datetime, str], Any]]:
    """Returns the last `count` hours or days, and the number and cost of the runs that ended, by these and state."""
    step = timedelta(**{f"{unit}s": 1})
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    last = hour if unit == "hour" else hour.replace(hour=0)
    moments = [last - step * n for n in reversed(range(count))]
    rows = fetch_all(_ENDED, {"unit": unit, "begin": moments[0]})
    return moments, {(row["at"], row["status"]): row for row in rows}


def _since(at: datetime | None, now: datetime) -> timedelta | None:
    return now - at if at is not None and at <= now else None


show_figures(waiting_figures)
show_chart(runs_per_hour)
show_chart(cost_per_day)
