"""What the pages of runs and triggers answer above their columns: why a run has not run, what became of a due time, and
which events a run has sent. Times are in UTC and in the trigger's zone.
"""

import json
from collections.abc import Callable
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.utils.html import format_html

from pipedai.admin.columns import Panel, value_of
from pipedai.admin.site import model_named
from pipedai.admin.support import staff_actor
from pipedai.admin.values import NOTHING, block, link_to, moment, spoken
from pipedai.clocks import zone_of
from pipedai.events import Event, emit
from triggers.explain.answers import NOT_SCHEDULED, Reason, RunExplanation, TriggerExplanation
from triggers.explain.due_times import check_time_in_question, explain_trigger
from triggers.explain.runs import explain_run
from triggers.models import Run, Trigger
from triggers.run_events.reading import page_of_events, stored_events
from triggers.states import FaultClass

# Shows a time in UTC and in the trigger's zone.
Both = Callable[[datetime | None], Any]
# The query parameter of a run's page by which staff ask for the events after a number.
ASKED = "events"
_SHOWN = 200
_MOST_BYTES = 1024 * 1024


def where_it_stands(run: Run, _: HttpRequest) -> Panel | None:
    told = explain_run(run.id)
    if told is None:
        return None
    both = partial(moment, zone=zone_of(run.trigger.timezone))
    return Panel(
        "Where it stands, and why",
        told.summary,
        [(name, value) for name, value in _run_facts(run, told, both) if value != NOTHING],
        ("Waits because", "In words", "Whom it is about", "Since", "Until", "What to do"),
        [_reason_row(reason, both) for reason in told.waiting_for],
    )


def _run_facts(run: Run, told: RunExplanation, both: Both) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = []
    if held := told.held:
        worker = Run._meta.get_field("worker").related_model
        facts += [
            ("Held by", link_to(worker, held.worker_id)),  # type: ignore[arg-type]
            ("Claimed", both(held.claimed_at)),
            ("Last heartbeat", both(held.last_heartbeat_at)),
            ("Lease ends", both(held.lease_expires_at)),
            ("Deadline", both(held.deadline_at)),
            ("Cancel requested", "yes" if held.cancel_requested else "no"),
        ]
    if ended := told.ended:
        is_error = ended.fault_class != FaultClass.NONE or value_of(run, "text__error_message")
        facts += [
            ("Error", block(ended.message) if is_error and ended.message else NOTHING),
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
        spoken(reason.code),
        reason.message,
        shown,
        both(reason.since),
        both(reason.until),
        reason.remedy or NOTHING,
    )


def due_time(trigger: Trigger, request: HttpRequest) -> Panel:
    """Returns the panel about the trigger's last due time, or the one before `at` in the page's URL. A time without an
    offset is in the trigger's zone.
    """
    zone, asked_at = zone_of(trigger.timezone), request.GET.get("at", "")
    ask = partial(
        Panel, f"What became of its {'' if asked_at else 'last '}due time", zone=str(zone)
    )
    try:
        at = _time(asked_at, zone) if asked_at else None
    except (ValueError, OverflowError):
        return ask("That is no time that can be asked about.")
    told = explain_trigger(trigger.id, at=at)
    if told is None:
        return ask("The trigger is gone.")
    shown = at.astimezone(zone).strftime("%Y-%m-%dT%H:%M") if at else ""
    return ask(told.message, _due_facts(told, partial(moment, zone=zone)), asked_at=shown)


def _time(sent: str, zone: tzinfo) -> datetime:
    at = datetime.fromisoformat(sent)
    if at.year < 1970:
        raise ValueError("before all computers' times")
    at = at if at.tzinfo else at.replace(tzinfo=zone)
    check_time_in_question(at)
    return at


def _due_facts(told: TriggerExplanation, both: Both) -> list[tuple[str, Any]]:
    tick = told.tick
    facts = [
        # Nothing was decided about a time at which nothing was due, which the sentence above says.
        ("Decision", NOTHING if told.decision == NOT_SCHEDULED else spoken(told.decision)),
        ("Due", both(told.due_at)),
        ("Decided", both(tick.decided_at if tick else None)),
        ("Run", link_to(Run, tick.run_id if tick else None)),
        ("Blocked by the run", link_to(Run, tick.blocked_by_id if tick else None)),
        ("Due before", both(told.previous_due_at)),
        ("Due next", both(told.next_due_at)),
    ]
    return [(name, value) for name, value in facts if value != NOTHING]


def events(run: Run, request: HttpRequest) -> Panel:
    """Returns the panel with the events that staff ask for, and audits that they did, because events may hold what the
    customer works on. If nobody asks, it returns a link that does, or the reason why the run has no events.
    """
    if ASKED not in request.GET:
        stored, why = stored_events(run.id)
        links = () if why is not None else ((f"Show the {stored:,} events", f"?{ASKED}=0"),)
        return Panel("Events", why or "", links=links)
    sent = request.GET[ASKED]
    after = int(sent) if sent.isascii() and sent.isdigit() and len(sent) < 10 else 0
    actor = staff_actor(request)
    with transaction.atomic():
        emit(Event("run.events-read", actor, run.environment_id, "run", run.id, {"after": after}))
    page = page_of_events(run.id, after=after, limit=_SHOWN, most_bytes=_MOST_BYTES)
    rows = [json.loads(event.json) for event in page.events]
    has_more = bool(rows) and rows[-1]["seq"] < page.last_seq
    return Panel(
        "Events",
        "" if rows else page.why_none or "There are none after this number.",
        headers=("Number", "When", "Type", "Text", "Data"),
        rows=[
            (
                row["seq"],
                row["at"],
                row["type"],
                block(row["text"] or ""),
                json.dumps(row["data"], ensure_ascii=False),
            )
            for row in rows
        ],
        links=((("The next events", f"?{ASKED}={rows[-1]['seq']}"),) if has_more else ()),
    )
