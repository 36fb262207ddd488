"""Explains one run: what it waits for, who holds it, or how it ended and was retried, and which event queued it."""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

from django.conf import settings

from pipedai.api.renderers import counted
from pipedai.sql import NOW, Row, fetch_all, fetch_one
from triggers.approvals.rules import DECIDERS
from triggers.explain.answers import (
    RETRY_CANCELED,
    SETTINGS_CHANGED,
    USAGE_LIMIT,
    Ended,
    EventExplanation,
    EventNamed,
    Held,
    Reason,
    Retry,
    RetryDecision,
    RunExplanation,
    Subject,
    moment_words,
    with_times,
    without_scheduler,
)
from triggers.explain.candidates import advice
from triggers.explain.waiting import awaited_decision, reasons
from triggers.models import Event, EventDecision
from triggers.reasons import ENDS, INFRA_FAULT
from triggers.runs.conditions import is_online
from triggers.runs.ending import NoRetry, why_no_retry
from triggers.runs.headers import SEALED_HEADERS, WITH_SEALED_HEADERS
from triggers.states import HELD, EndedBy, EventDecided, FaultClass, RetryMode, Status

# Reads runs with those columns of their triggers, workers and retries that explanations need. A retry is found by a
# unique index, and the other rows by their primary keys.
_RUN = f"""
SELECT r.id, r.environment_id, r.trigger_id, r.worker_id, r.pool_id, r.status, r.attempt, r.max_retries, r.queued_at,
    r.available_at, r.claimed_at, r.started_at, r.ended_at, r.ended_by, r.lease_expires_at, r.deadline_at,
    r.cancel_requested_at, r.fault_class, r.short_message, r.tool_calls_total, r.tool_calls_effects,
    r.tool_calls_unknown, r.event_id, r.nothing_new, r.looked_at, r.look_only, r.session_id, r.spells, r.at_limit,
    r.limit_retries, r.had_effects,
    x.error_message, t.name AS trigger_name, t.retry_after_effects, t.retry_mode, t.worker_id AS trigger_worker_id,
    t.pool_id AS trigger_pool_id, t.enabled AS trigger_enabled, t.deleted_at AS trigger_deleted_at,
    {SEALED_HEADERS},
    c.name AS connection_name, c.grant_type AS connection_grant, c.status AS connection_status,
    c.error AS connection_error, c.refresh_at AS connection_refresh_at,
    r.pool_from, r.resume_until, r.start_deadline_at, t.max_concurrent_runs,
    r.available_at + t.prefer_seconds * interval '1 second' AS avoided_until,
    e.name AS environment_name, e.paused_at, e.pause_reason, p.name AS pool_name, w.label AS worker_label,
    w.last_seen_at AS worker_seen_at,
    EXISTS (
        SELECT FROM pool_member m WHERE m.pool_id = r.pool_id AND m.worker_id = r.worker_id) AS worker_is_member,
    EXISTS (
        SELECT FROM pool_member m WHERE m.pool_id = t.pool_id AND m.worker_id = r.worker_id) AS worker_is_in_pool,
    (SELECT max(o.last_seen_at) FROM pool_member m JOIN worker o ON o.id = m.worker_id
        WHERE m.pool_id = r.pool_id AND {is_online("o")}) AS pool_seen_at,
    n.id AS retry_id, n.status AS retry_status, n.available_at AS retry_available_at, n.ended_by AS retry_ended_by,
    n.claimed_at IS NOT NULL AS retry_was_claimed,
    CASE WHEN r.nothing_new THEN (
        SELECT max(l.ended_at) FROM run l
        WHERE l.trigger_id = r.trigger_id AND l.environment_id = r.environment_id AND l.status = 'succeeded'
            AND NOT l.nothing_new AND l.ended_at < r.ended_at) END AS new_at,
    a.id AS approval_id, a.tool AS approval_tool, a.role AS approver_role, a.created_at AS approval_asked_at,
    {DECIDERS},
    {NOW} AS now
FROM run r
JOIN trigger t ON t.id = r.trigger_id
JOIN environment e ON e.id = r.environment_id
LEFT JOIN pool p ON p.id = r.pool_id
{WITH_SEALED_HEADERS}
LEFT JOIN worker w ON w.id = r.worker_id
LEFT JOIN run_text x ON x.run_id = r.id
LEFT JOIN run n ON n.retry_of_id = r.id
LEFT JOIN approval a ON a.run_id = r.id AND a.environment_id = r.environment_id AND a.status = 'pending'
WHERE r.id = ANY(%(run_ids)s)
"""

# The reasons why a run is not retried, in words for people.
_NO_RETRY = {
    NoRetry.SUCCEEDED: "It succeeded, so it is not retried.",
    NoRetry.CANCELED: "It was canceled, so it is not retried.",
    NoRetry.CLIENT_FAULT: "It is not retried, because another attempt would probably end in the same way: the fault is"
    " in the prompt, the model or a limit of the trigger.",
    NoRetry.CANCEL_REQUESTED: "It is not retried, because somebody had asked to cancel it.",
    NoRetry.RETRIES_USED: "It is not retried: it was attempt {attempt}, and the trigger allowed {attempts}.",
    NoRetry.START_DEADLINE: "It is not retried, because no machine had taken it before its start deadline.",
    NoRetry.HAD_EFFECTS: "It is not retried, because its tool calls may have changed something, and {why_not}.",
    NoRetry.APPROVAL_EXPIRED: "It is not retried, because another attempt would ask for the same decision.",
    NoRetry.APPROVAL_UNREACHABLE: "It is not retried, because the decision was about this run alone.",
    NoRetry.TRIGGER_DELETED: "It is not retried, because its trigger was deleted.",
    NoRetry.TRIGGER_DISABLED: "It is not retried, because its trigger is paused.",
}

_LIMITS_USED = "It is not retried, because {at_limits} of its attempts have ended at a usage limit."

_ENDED_WORDS = {
    Status.SUCCEEDED: "Succeeded",
    Status.FAILED: "Failed",
    Status.TIMED_OUT: "Timed out",
    Status.CANCELED: "Was canceled",
}

_RETRY_WORDS = {
    Status.CLAIMED: "its retry is claimed",
    Status.RUNNING: "its retry is running",
    Status.WAITING: "its retry waits for a decision",
    Status.SUCCEEDED: "its retry succeeded",
    Status.FAILED: "its retry failed",
    Status.TIMED_OUT: "its retry timed out",
    Status.CANCELED: "its retry was canceled",
}


@with_times
def explain_run(run_id: UUID, *, now: datetime | None = None) -> RunExplanation | None:
    """Returns the explanation of a run. It takes one statement, another one for a run that has not ended, those of
    `reasons` for a queued run, one for a held run that is overdue, and one for a run that an event queued.
    """
    run = fetch_one(_RUN, {"run_ids": [run_id], "now": now})
    if run is None:
        return None
    told = partial(
        RunExplanation,
        run_id,
        run["status"],
        event=event_of_run(run["event_id"]) if run["event_id"] else None,
    )
    if run["ended_at"] is None:
        told = partial(told, advice=advice(run))
    if run["status"] == Status.QUEUED:
        waiting_for = tuple(reasons(run, now=now))
        return told(_waiting_words(run, waiting_for), waiting_for=waiting_for)
    if run["status"] == Status.WAITING:
        reason = awaited_decision(run)
        return told(reason.message, waiting_for=(reason,))
    if run["status"] in HELD:
        held = Held(
            worker_id=run["worker_id"],
            claimed_at=run["claimed_at"],
            last_heartbeat_at=_last_heartbeat(run),
            lease_expires_at=run["lease_expires_at"],
            deadline_at=run["deadline_at"],
            cancel_requested=run["cancel_requested_at"] is not None,
        )
        return told(_held_words(run, now), held=held)
    message, retry = run["error_message"] or run["short_message"], _retry(run)
    ended = Ended(run["ended_at"], run["ended_by"], run["fault_class"], message)
    return told(_ended_words(run, retry), ended=ended, retry=retry)


def retries_of(run_ids: Collection[UUID], *, now: datetime | None = None) -> dict[UUID, Retry]:
    """Returns for each of these ended runs whether it is retried, and why. It takes one statement."""
    if not run_ids:
        return {}
    rows = fetch_all(_RUN, {"run_ids": list(run_ids), "now": now})
    return {run["id"]: _retry(run) for run in rows}


def _waiting_words(run: Row, waiting_for: tuple[Reason, ...]) -> str:
    first, *others = [reason.message for reason in waiting_for] or [_due_words(run)]
    words = (
        f"{first.removesuffix('.')} ({counted(len(others), 'more reason')})." if others else first
    )
    deadline = run["start_deadline_at"]
    if deadline is None or deadline <= run["now"]:
        return words
    at = moment_words(deadline, run["now"], to_the_second=True)
    return f"{words} It ends as failed unless a machine takes it before {at}."


def _due_words(run: Row) -> str:
    if run["pool_id"] is None or run["pool_from"] > run["now"]:
        seen = _seen_words(run["worker_seen_at"], run["now"])
        return f"It is due, and machine {run['worker_label']} takes it when it next asks for work{seen}."
    seen = _seen_words(run["pool_seen_at"], run["now"])
    return f"It is due, and the machine of pool {run['pool_name']} that next asks for work takes it{seen}."


def _seen_words(seen: datetime | None, now: datetime) -> str:
    """Returns when a worker last called, which shows people whether it is really there."""
    if seen is None:
        return ""
    return f" (last heard from {max(0, (now - seen).total_seconds()):.0f} s ago)"


def _last_heartbeat(run: Row) -> datetime:
    """Returns when the lease was last renewed, since each renewal sets its end to RUN_LEASE_SECONDS later."""
    renewed: datetime = run["lease_expires_at"] - timedelta(seconds=settings.RUN_LEASE_SECONDS)
    claimed: datetime = run["claimed_at"]
    return max(renewed, claimed)


def _held_words(run: Row, at: datetime | None) -> str:
    name, now = run["worker_label"], run["now"]
    if run["status"] == Status.CLAIMED:
        words = f"Machine {name} took it at {moment_words(run['claimed_at'], now)} and has not started it yet"
    else:
        words = f"Machine {name} has been executing it since {moment_words(run['started_at'], now)}"
    if run["cancel_requested_at"] is not None:
        words += ", and was asked to cancel it"
    is_silent, is_late = run["lease_expires_at"] <= now, run["deadline_at"] <= now
    if not (is_silent or is_late):
        return f"{words}."
    if is_silent:
        words += f", but has been silent since {moment_words(_last_heartbeat(run), now)}: its lease is over"
    else:
        words += f", but had to be done by {moment_words(run['deadline_at'], now)}"
    if nobody := without_scheduler(now=at):
        return f"{words}, and {nobody}."
    return f"{words}, and the scheduler ends the run unless the machine reports first."


def _ended_words(run: Row, retry: Retry) -> str:
    """Returns how the run ended, in words. It mentions no retry for a success or a canceled run: nobody expects one."""
    words = _ENDED_WORDS[Status(run["status"])]
    if run["ended_by"] in ENDS:
        words += f", because {ENDS[run['ended_by']].because}"
    if run["ended_by"] == EndedBy.USER:
        words += " on request, "
        words += "while no machine held it" if run["spells"] else "before a machine had taken it"
    if run["status"] == Status.CANCELED and run["ended_by"] == EndedBy.LEASE:
        words = "Was canceled, because somebody had asked for it and its machine fell silent"
    words += f"{',' if ',' in words else ''} at {moment_words(run['ended_at'], run['now'])}"
    if run["ended_by"] == EndedBy.WORKER and run["fault_class"] != FaultClass.NONE:
        words += ", as its machine reported"
    if run["nothing_new"]:
        since = (
            "yet" if run["new_at"] is None else f"since {moment_words(run['new_at'], run['now'])}"
        )
        looked = moment_words(run["looked_at"], run["now"])
        return f"{words}: its machine looked at {looked}, and nothing was new {since}, so no agent was started."
    if retry.code in (NoRetry.SUCCEEDED, NoRetry.CANCELED):
        return f"{words}."
    return f"{words}; {retry.message[0].lower()}{retry.message[1:]}"


def _retry(run: Row) -> Retry:
    """Returns the run's retry. It asks `why_no_retry` only without one, as the trigger may have changed since."""
    retry_id, due = run["retry_id"], run["retry_available_at"]
    why = USAGE_LIMIT if run["at_limit"] else INFRA_FAULT
    if retry_id is not None and run["retry_status"] == Status.QUEUED:
        at = moment_words(due, run["now"], to_the_second=True)
        when = f"is due at {at}" if due > run["now"] else f"has been due since {at}"
        which = ", which does not count among the trigger's retries," if run["at_limit"] else ""
        return Retry(RetryDecision.DUE, why, f"Its retry{which} {when}.", retry_id, due)
    if retry_id is not None and run["retry_was_claimed"]:
        words = f"It was retried: {_RETRY_WORDS[Status(run['retry_status'])]}."
        return Retry(RetryDecision.DONE, why, words, retry_id, due)
    reason = why_no_retry(_as_it_ended(run))
    if retry_id is not None and (reason is None or run["retry_ended_by"] != EndedBy.LATE_RESULT):
        words = "Its retry was canceled before a machine had taken it."
        return Retry(RetryDecision.NONE, RETRY_CANCELED, words, retry_id)
    if reason is None:
        return Retry(
            RetryDecision.NONE,
            SETTINGS_CHANGED,
            "It is not retried, because when it ended, its trigger was paused, or retried no runs that may have"
            " changed something: the audit log shows which.",
        )
    sentence = _NO_RETRY[reason]
    if reason is NoRetry.RETRIES_USED and run["at_limit"]:
        sentence = _LIMITS_USED
    words = sentence.format(
        attempt=run["attempt"] - run["limit_retries"],
        attempts=run["max_retries"] + 1,
        why_not=_why_not_again(run),
        at_limits=run["limit_retries"] + 1,
    )
    if retry_id is not None:
        words = (
            f"{words[:-1]}; the retry that waited was canceled when the machine's late result came."
        )
    return Retry(RetryDecision.NONE, reason, words, retry_id)


def _why_not_again(run: Row) -> str:
    """Returns, as the end of a sentence, why a run that may have changed something is not repeated."""
    if run["ended_by"] == EndedBy.HAD_EFFECTS:
        return "its session can't be continued any more"
    if run["retry_mode"] == RetryMode.RESUME:
        return "its session is not known, or its machine may not continue it"
    return "its trigger retries no runs that may have"


def _as_it_ended(run: Row) -> Row:
    """Returns the run as if its trigger were not deleted, unless it was deleted before the run ended."""
    deleted = run["trigger_deleted_at"]
    return {
        **run,
        "trigger_deleted_at": deleted if deleted and deleted <= run["ended_at"] else None,
    }


_OF_EVENT = ("source", "run__trigger")

# The columns that are read of an event. They leave out its body, and the secrets of its source and trigger.
_READ = ("type", "received_at", "source__name", "run__status", "run__trigger__name")


def event_of_run(event_id: UUID) -> EventNamed | None:
    """Returns the event that queued the run, or None if it has been pruned."""
    event = Event.objects.select_related(*_OF_EVENT).only(*_READ).filter(id=event_id).first()
    return None if event is None else _named(event)


def last_event(
    trigger_id: UUID, *, at: datetime, now: datetime, shows_values: bool
) -> EventExplanation | None:
    """Returns what was decided for the trigger about the last event up to `at`, or None if it heard of none. Without
    `shows_values` it leaves out the value that a clause saw, because that is a part of the event's payload.
    """
    decisions = EventDecision.objects.filter(trigger_id=trigger_id, received_at__lte=at)
    related = [f"event__{name}" for name in _OF_EVENT]
    read = ("decision", "code", "clause", "run_id", *(f"event__{name}" for name in _READ))
    rows = decisions.select_related(*related).only(*read)
    found = rows.order_by("-received_at", "-id").first()
    if found is None:
        return None
    event, clause = _named(found.event), found.clause
    if clause is not None and not shows_values and clause["path"] is not None:
        clause = {**clause, "saw": None}
    message = (
        f"The {_words(event)} of {moment_words(event.received_at, now)} {_became(found, clause)}."
    )
    decision = cast("EventDecided", found.decision)
    return EventExplanation(event, decision, found.code, clause, found.run_id, message)


def _named(event: Any) -> EventNamed:
    if event.run is None:
        source = Subject("source", event.source.id, event.source.name)
        return EventNamed(event.id, event.type, event.received_at, source)
    trigger, run = event.run.trigger, event.run
    source = Subject("trigger", trigger.id, trigger.name)
    return EventNamed(event.id, run.status, event.received_at, source, run.id)


def _words(event: EventNamed) -> str:
    if event.run_id is not None:
        return f"end of a run of {event.source.name}"
    kind = f"event {event.type}" if event.type else "event"
    return f"{kind} from {event.source.name}"


def _became(found: EventDecision, clause: Any) -> str:
    if found.decision == EventDecided.FIRED:
        return "queued a run"
    if found.decision == EventDecided.COALESCED:
        return "joined a run that an earlier event had queued"
    if found.decision == EventDecided.REFUSED:
        return f"started nothing: it was refused with {found.code}"
    if clause is None:
        return "started nothing"
    if clause["path"] is None:
        return f"started nothing: its {clause['op']} is {clause['saw']}, which does not count"
    words = f"started nothing: {clause['path'] or 'the body'} {clause['op']} did not hold"
    return words if clause["saw"] is None else f"{words} for {clause['saw']}"
