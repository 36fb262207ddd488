"""The panels of runs and triggers that answer questions of staff (SPEC §13)."""

import json
from collections.abc import Callable
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.html import format_html

from pipedai.admin.fields import value_of
from pipedai.admin.panels import Answer, Drawn, Links, Table
from pipedai.admin.site import model_named
from pipedai.admin.support import staff_actor
from pipedai.admin.values import (
    NOTHING,
    data,
    excerpt,
    in_both_zones,
    link_to,
    long_text,
    moment,
    number,
    short_id,
    span,
    spoken,
    state,
    text,
    yes,
)
from pipedai.clocks import zone_of
from pipedai.events import Event, emit
from pipedai.sql import fetch_all
from triggers.explain.answers import Reason, RunExplanation, TriggerExplanation
from triggers.explain.due_times import check_time_in_question, explain_trigger
from triggers.explain.runs import explain_run
from triggers.models import Run, Trigger
from triggers.run_events.reading import page_of_events, stored_events
from triggers.states import FaultClass

# The classes of other apps are taken from the foreign keys of Trigger, because this app must not import `workers`.
Worker: Any = Trigger._meta.get_field("worker").related_model
Pool: Any = Trigger._meta.get_field("pool").related_model
_NO_TIME = "That is no time that can be asked about."
# Shows a time in UTC and in the trigger's zone.
Both = Callable[[datetime | None], Any]


def beginning_of_error(run: str = "") -> Left:
    """Returns an annotation: the beginning of the error message of the run at the path `run`, such as `run__`."""
    return Left(f"{run}text__error_message", 300)


def shown_error(row: Any, run: Any = None) -> Any:
    """Returns the row's `error_begins`, or what the worker said of a failed run that has no message."""
    run = run or row
    is_failure = run.fault_class in (FaultClass.INFRA, FaultClass.CLIENT)
    return excerpt(row.error_begins or (run.short_message if is_failure else None))


def run_panels(run: Run, _: HttpRequest) -> list[Drawn]:
    told = explain_run(run.id)
    if told is None:
        return []
    both = partial(in_both_zones, zone=zone_of(run.trigger.timezone))
    panels: list[Drawn] = [Answer("Where it stands, and why", _run_facts(told, both), told.summary)]
    if told.waiting_for:
        panels.append(
            Table(
                "What it waits for",
                ("Reason", "In words", "Whom it is about", "Since", "Until", "What to do"),
                [_reason_row(reason, both) for reason in told.waiting_for],
            )
        )
    return panels


def due_time_panel(trigger: Trigger, request: HttpRequest) -> list[Drawn]:
    """Returns the panel about the trigger's last due time, or the one before `at` in the page's URL. A time without an
    offset is in the trigger's zone.
    """
    zone, asked_at = zone_of(trigger.timezone), request.GET.get("at", "")
    title = "What became of its due time" if asked_at else "What became of its last due time"
    try:
        at = _time(asked_at, zone) if asked_at else None
    except (ValueError, OverflowError):
        return [Answer(title, (), _NO_TIME, zone=str(zone))]
    told = explain_trigger(trigger.id, at=at)
    if told is None:
        return [Answer(title, (), "The trigger is gone.")]
    shown = at.astimezone(zone).strftime("%Y-%m-%dT%H:%M") if at else ""
    facts = _due_facts(told, partial(in_both_zones, zone=zone))
    return [Answer(title, facts, told.message, zone=str(zone), asked_at=shown)]


def _time(sent: str, zone: tzinfo) -> datetime:
    at = datetime.fromisoformat(sent)
    if at.year < 1970:
        raise ValueError("before all computers' times")
    at = at if at.tzinfo else at.replace(tzinfo=zone)
    check_time_in_question(at)
    return at


def _run_facts(told: RunExplanation, both: Both) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = []
    if held := told.held:
        facts += [
            ("Held by", link_to(Worker, held.worker_id)),
            ("Claimed", both(held.claimed_at)),
            ("Last heartbeat", both(held.last_heartbeat_at)),
            ("Lease ends", both(held.lease_expires_at)),
            ("Deadline", both(held.deadline_at)),
            ("Cancel requested", yes(held.cancel_requested)),
        ]
    if ended := told.ended:
        facts += [
            ("Ended", both(ended.at)),
            ("Ended by", spoken(ended.by)),
            ("Fault", ended.fault_class),
        ]
    if retry := told.retry:
        facts += [
            ("Retry", f"{retry.decision}: {spoken(retry.code)}"),
            ("The retry", link_to(Run, retry.run_id)),
            ("The retry is due", both(retry.due_at)),
        ]
    return facts


def _reason_row(reason: Reason, both: Both) -> tuple[Any, ...]:
    subject = reason.subject
    shown: Any = NOTHING
    if subject:
        named = link_to(model_named(subject.type), subject.id, subject.name)
        shown = format_html("{} {}", subject.type, named)
    return (
        state(reason.code),
        reason.message,
        shown,
        both(reason.since),
        both(reason.until),
        text(reason.remedy),
    )


def _due_facts(told: TriggerExplanation, both: Both) -> list[tuple[str, Any]]:
    tick = told.tick
    return [
        ("Decision", state(told.decision)),
        ("Due", both(told.due_at)),
        ("Decided", both(tick.decided_at if tick else None)),
        ("Run", link_to(Run, tick.run_id if tick else None)),
        ("Blocked by the run", link_to(Run, tick.blocked_by_id if tick else None)),
        ("Due before", both(told.previous_due_at)),
        ("Due next", both(told.next_due_at)),
    ]


# The columns that the timeline shows.
MOMENTS = {
    "scheduled_for": "Scheduled for", "queued_at": "Queued", "available_at": "Due", "pool_from": "Pool may take it",
    "start_deadline_at": "Start deadline", "claimed_at": "Claimed", "started_at": "Started",
    "cancel_requested_at": "Cancel requested", "ended_at": "Ended", "lease_expires_at": "Lease ends",
    "deadline_at": "Deadline",
}  # fmt: skip

# Follows `retry_of_id` from a run back to the earliest attempt that still exists, and from there forward to the latest.
_ATTEMPTS = """
WITH RECURSIVE up AS (
    SELECT id, retry_of_id, 0 AS steps FROM run WHERE id = %(id)s
    UNION ALL SELECT r.id, r.retry_of_id, up.steps + 1 FROM run r JOIN up ON r.id = up.retry_of_id),
down AS (
    (SELECT id FROM up ORDER BY steps DESC LIMIT 1)
    UNION ALL SELECT r.id FROM run r JOIN down ON r.retry_of_id = down.id)
SELECT r.id, r.attempt, r.status, r.fault_class, r.queued_at, r.ended_at, r.short_message
FROM down JOIN run r ON r.id = down.id ORDER BY r.attempt
"""

# The query parameter of a run's page by which staff ask for the events after a number.
ASKED = "events"
_SHOWN = 200
_MOST_BYTES = 1024 * 1024


def timeline(run: Run, _: HttpRequest) -> list[Drawn]:
    """Returns a table of what happened to a run and will happen, in UTC and in the trigger's zone."""
    zone = zone_of(run.trigger.timezone)
    moments = {name: at for name in MOMENTS if (at := getattr(run, name)) is not None}
    if run.available_at == run.queued_at:
        moments.pop("available_at")
    if run.claimed_at is not None:
        moments.pop("start_deadline_at", None)
    if run.claimed_at is not None or run.worker_id is None:
        moments.pop("pool_from", None)
    rows: list[tuple[Any, ...]] = []
    last = None
    for name, at in sorted(moments.items(), key=lambda each: each[1]):
        what = MOMENTS[name]
        if name == "ended_at":
            by = f", by {spoken(run.ended_by)}" if run.ended_by else ""
            what = f"{what}: {spoken(run.status)}{by}"
        rows.append((in_both_zones(at, zone), what, span(at - last) if last else ""))
        last = at
    return [Table("Timeline", ("When", "What", "After"), rows)]


def chain(run: Run, _: HttpRequest) -> list[Drawn]:
    rows = [
        (
            each["attempt"],
            short_id(run.id) if each["id"] == run.id else link_to(Run, each["id"]),
            state(each["status"]),
            text(each["fault_class"]),
            moment(each["queued_at"]),
            moment(each["ended_at"]),
            text(each["short_message"]),
        )
        for each in fetch_all(_ATTEMPTS, {"id": run.id})
    ]
    headers = ("Attempt", "Run", "State", "Fault", "Queued", "Ended", "Message")
    return [Table("Attempts", headers, rows)]


def tool_calls(run: Run, _: HttpRequest) -> list[Drawn]:
    """Returns a table of a run's listed tool calls. The worker's word for them is not verified."""
    rows = [
        (call["at"], call["tool"], number(call["durationMs"]), call["outcome"], call["effect"])
        for call in value_of(run, "result__tool_calls") or ()
    ]
    headers = ("When", "Tool", "Took (ms)", "Outcome", "Effect")
    return [Table("Tool calls", headers, rows, nothing="The worker listed none.")]


def events(run: Run, request: HttpRequest) -> list[Drawn]:
    """Returns the panels with the events that staff ask for, and audits that they did, because events may hold what the
    customer works on. If nobody asks, it returns a link that does, or the reason why the run has no events.
    """
    if ASKED not in request.GET:
        stored, why = stored_events(run.id)
        if why is not None:
            return [Table("Events", (), [], nothing=why)]
        return [Links("Events", [(f"Show the {stored:,} events", f"?{ASKED}=0")])]
    sent = request.GET[ASKED]
    after = int(sent) if sent.isascii() and sent.isdigit() and len(sent) < 10 else 0
    actor = staff_actor(request)
    with transaction.atomic():
        emit(Event("run.events-read", actor, run.environment_id, "run", run.id, {"after": after}))
    page = page_of_events(run.id, after=after, limit=_SHOWN, most_bytes=_MOST_BYTES)
    rows = [json.loads(event.json) for event in page.events]
    table = Table(
        "Events",
        ("Number", "When", "Type", "Text", "Data"),
        [
            (row["seq"], row["at"], row["type"], long_text(row["text"]), data(row["data"]))
            for row in rows
        ],
        nothing=page.why_none or "There are none after this number.",
    )
    if not rows or rows[-1]["seq"] >= page.last_seq:
        return [table]
    return [table, Links("More events", [("The next events", f"?{ASKED}={rows[-1]['seq']}")])]
