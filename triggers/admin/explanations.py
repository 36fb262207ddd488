"""The panels that tell staff why a run was not executed, and what became of a due time of a trigger (SPEC §13)."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any

from django.contrib.admin import site
from django.utils.html import format_html

from pipedai.admin.panels import Answer, Panel, Table
from pipedai.admin.values import in_both_zones, link_to, spoken, state, text, yes, zone_of
from triggers.explain.answers import Held, Reason, RunExplanation, TriggerExplanation
from triggers.explain.due_times import check_time_in_question, explain_trigger
from triggers.explain.runs import explain_run
from triggers.models import Budget, Run, Trigger

# The classes of other apps are taken from the foreign keys of Trigger, because this app must not import `workers`.
Worker: Any = Trigger._meta.get_field("worker").related_model
Pool: Any = Trigger._meta.get_field("pool").related_model
_MODELS: Mapping[str, Any] = {
    "trigger": Trigger,
    "worker": Worker,
    "pool": Pool,
    "budget": Budget,
    "environment": Trigger._meta.get_field("environment").related_model,
}
_NO_TIME = "That is no time that can be asked about."


def run_panels(run: Run) -> list[Panel]:
    """Returns the panel that explains the state of a run, and for a run that waits a table of what it waits for."""
    told = explain_run(run.id)
    if told is None:
        return []
    zone = zone_of(run.trigger.timezone)
    panels: list[Panel] = [Answer("Where it stands, and why", _run_facts(told, zone), told.summary)]
    if told.waiting_for:
        panels.append(
            Table(
                "What it waits for",
                ("Reason", "In words", "Whom it is about", "Since", "Until", "What to do"),
                [_reason_row(reason, zone) for reason in told.waiting_for],
            )
        )
    return panels


def trigger_panel(trigger: Trigger, sent: Mapping[str, str]) -> Answer:
    """Returns the panel that says what became of a trigger's last due time, and what comes next.

    The parameter `at` of the page's URL names another time to ask about. A time without an offset is read in the
    trigger's zone.
    """
    zone, asked_at = zone_of(trigger.timezone), sent.get("at", "")
    title = "What became of its due time" if asked_at else "What became of its last due time"
    try:
        at = _time(asked_at, zone) if asked_at else None
    except (ValueError, OverflowError):
        return Answer(title, (), _NO_TIME, zone=str(zone))
    told = explain_trigger(trigger.id, at=at)
    if told is None:
        return Answer(title, (), "The trigger is gone.")
    shown = at.astimezone(zone).strftime("%Y-%m-%dT%H:%M") if at else ""
    return Answer(title, _due_facts(told, zone), told.message, zone=str(zone), asked_at=shown)


def _time(sent: str, zone: tzinfo) -> datetime:
    at = datetime.fromisoformat(sent)
    if at.year < 1970:
        raise ValueError("before all computers' times")
    at = at if at.tzinfo else at.replace(tzinfo=zone)
    check_time_in_question(at)
    return at


def _run_facts(told: RunExplanation, zone: tzinfo) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = []
    if told.held:
        facts += _held_facts(told.held, zone)
    if told.ended:
        facts += [
            ("Ended", in_both_zones(told.ended.at, zone)),
            ("Ended by", spoken(told.ended.by)),
            ("Fault", told.ended.fault_class),
        ]
    if told.retry:
        facts += [
            ("Retry", f"{told.retry.decision}: {spoken(told.retry.code)}"),
            ("The retry", link_to(Run, told.retry.run_id)),
            ("The retry is due", in_both_zones(told.retry.due_at, zone)),
        ]
    return facts


def _held_facts(held: Held, zone: tzinfo) -> list[tuple[str, Any]]:
    return [
        ("Held by", link_to(Worker, held.worker_id)),
        ("Claimed", in_both_zones(held.claimed_at, zone)),
        ("Last heartbeat", in_both_zones(held.last_heartbeat_at, zone)),
        ("Lease ends", in_both_zones(held.lease_expires_at, zone)),
        ("Deadline", in_both_zones(held.deadline_at, zone)),
        ("Cancel requested", yes(held.cancel_requested)),
    ]


def _reason_row(reason: Reason, zone: tzinfo) -> tuple[Any, ...]:
    subject = reason.subject
    shown = text(None)
    if subject:
        model = _MODELS[subject.type]
        has_page = site.is_registered(model)
        shown = format_html(
            "{} {}",
            subject.type,
            link_to(model, subject.id, subject.name) if has_page else subject.name,
        )
    return (
        state(reason.code),
        reason.message,
        shown,
        in_both_zones(reason.since, zone),
        in_both_zones(reason.until, zone),
        text(reason.remedy),
    )


def _due_facts(told: TriggerExplanation, zone: tzinfo) -> list[tuple[str, Any]]:
    tick = told.tick
    return [
        ("Decision", state(told.decision)),
        ("Due", in_both_zones(told.due_at, zone)),
        ("Decided", in_both_zones(tick.decided_at if tick else None, zone)),
        ("Run", link_to(Run, tick.run_id if tick else None)),
        ("Blocked by the run", link_to(Run, tick.blocked_by_id if tick else None)),
        ("Due before", in_both_zones(told.previous_due_at, zone)),
        ("Due next", in_both_zones(told.next_due_at, zone)),
    ]
