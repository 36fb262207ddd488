"""Makes the week of runs that the demo begins with. They take the steps of real runs, at past times, so that budgets,
incidents, notices and the audit log follow from them (SPEC §28).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.api.serializers import validated
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from triggers.models import Tick, Trigger
from triggers.run_events.recording import make_event, store_events
from triggers.runs.conditions import limits_of
from triggers.runs.lifecycle import claim_run
from triggers.runs.queueing import queue_run, queue_scheduled_runs
from triggers.runs.reports import complete_run
from triggers.schedules.cron import Schedule
from triggers.states import Decision, Source
from workers.models import Worker
from workers.protocol.serializers import CompleteBody, outcome_of

# The triggers of the runs: one is well, one fails, and one waits for a machine that is offline.
HEALTHY: Final[dict[str, Any]] = {
    "name": "Morning report",
    "description": "Made by seed_demo.",
    "prompt": "Sum up what happened overnight: orders, complaints, and whatever needs an answer today.",
    "schedule": "0 6 * * *",
    "timezone": "Europe/Berlin",
}
FAILING: Final[dict[str, Any]] = {
    **HEALTHY,
    "name": "Review pull requests",
    "prompt": "Review each open pull request, and say what keeps it from being merged.",
    "schedule": "0 9,17 * * *",
    "alertAfterFailures": 2,
}
STRANDED: Final[dict[str, Any]] = {
    **HEALTHY,
    "name": "Check the backups",
    "prompt": "Look whether every backup of the last day is there and can be read.",
    "schedule": "0 22 * * *",
}
SPENT_USD: Final = 10
_SPAN = timedelta(days=7)
# Runs are over before the demo begins.
_QUIET = timedelta(minutes=10)
_SAID: Final = {
    "Morning report": "Two orders are late, and one customer asked for a call. The rest is as usual.",
    "Review pull requests": "Reviewed three pull requests: two are fine, one lacks a test.",
    "Check the backups": "All four backups are there, and the newest is from an hour ago.",
}
_REFUSED: Final[dict[str, Any]] = {
    "status": "failed",
    "exitCode": 1,
    "shortMessage": "The MCP server refused the token.",
    "errorMessage": "tools/list answered 401 Unauthorized: the token has expired.",
}
# What the machine told of a failed run, as types and texts of events.
_TOLD: Final = (
    ("status", "Connecting to the MCP server."),
    ("status", _REFUSED["errorMessage"]),
    ("message", "Without the tools of the MCP server I can't read the pull requests, so I stop."),
)


class _Due(NamedTuple):
    """A run of the week. It is left in the queue if its machine is offline by then."""

    at: datetime
    trigger: Trigger
    worker_id: UUID
    scheduled: bool = True
    waits: bool = False
    fails: bool = False


def live_through(
    healthy: Trigger,
    failing: Trigger,
    stranded: Trigger,
    *,
    offline: Worker,
    user_id: UUID,
    now: datetime,
) -> None:
    """Makes the runs of these scheduled triggers until `now`. The last two of `failing` fail; `stranded` waits for the
    worker `offline`, which is silent since some hours before. The runs cost SPENT_USD in all, so no month costs more,
    on whichever day it begins. The caller has made workers, triggers and budgets in the same transaction.
    """
    assert healthy.worker_id is not None
    runs = [
        *_due(healthy, healthy.worker_id, now),
        *_due(failing, healthy.worker_id, now),
        *_due(stranded, offline.id, now),
    ]
    *_, last = (each for each in runs if each.trigger is failing)
    *_, waiting = (each for each in runs if each.trigger is stranded)
    runs = [each._replace(fails=each is last, waits=each is waiting) for each in runs]
    runs.append(
        _Due(now - timedelta(minutes=2), failing, healthy.worker_id, scheduled=False, fails=True)
    )
    runs.sort(key=lambda each: each.at)
    weights = {each: 2 + number % 3 for number, each in enumerate(runs) if not each.waits}
    share = SPENT_USD / sum(weights.values())
    for each in runs:
        run_id = _queue(each, user_id)
        if not each.waits:
            _execute(each, run_id, weights[each], share)
    Trigger.objects.filter(id__in=[healthy.id, failing.id, stranded.id]).update(
        created_at=now - _SPAN
    )
    Worker.objects.filter(id__in=[healthy.worker_id, offline.id]).update(created_at=now - _SPAN)
    Worker.objects.filter(id=offline.id).update(last_seen_at=waiting.at - timedelta(hours=3))


def _due(trigger: Trigger, worker_id: UUID, now: datetime) -> Iterator[_Due]:
    assert trigger.schedule is not None
    schedule = Schedule(trigger.schedule, trigger.timezone)
    at = schedule.next_after(now - _SPAN)
    while at < now - _QUIET:
        yield _Due(at, trigger, worker_id)
        at = schedule.next_after(at)


def _queue(due: _Due, user_id: UUID) -> UUID:
    environment_id, trigger_id = due.trigger.environment_id, due.trigger.id
    if not due.scheduled:
        user = Actor("user", user_id)
        run = queue_run(trigger_id=trigger_id, source=Source.MANUAL, actor=user, now=due.at)
        return UUID(str(run["id"]))
    run_id = new_id()
    queue_scheduled_runs(
        [{"run_id": run_id, "trigger_id": trigger_id, "tick_at": due.at}], now=due.at
    )
    Tick.objects.create(
        environment_id=environment_id,
        trigger_id=trigger_id,
        tick_at=due.at,
        last_tick_at=due.at,
        decision=Decision.FIRED,
        run_id=run_id,
        decided_at=due.at,
    )
    about = {"tickAt": iso_time(due.at), "triggerId": str(trigger_id)}
    emit(Event("run.scheduled", SYSTEM, environment_id, "run", run_id, about, due.at))
    return run_id


def _execute(due: _Due, run_id: UUID, weight: int, share: float) -> None:
    actor = Actor("worker", due.worker_id)
    claim_run(
        worker_id=due.worker_id,
        run_id=run_id,
        claim_id=run_id.hex,
        start=True,
        actor=actor,
        now=due.at + timedelta(seconds=2),
        **limits_of(max_concurrency=1, disabled=False, limited=False, approved=True),
    )
    ended = due.at + timedelta(seconds=2 + 19 * weight)
    values = validated(CompleteBody, _report(due, weight, share))
    complete_run(
        worker_id=due.worker_id,
        run_id=run_id,
        outcome=outcome_of(values),
        reported={},
        actor=actor,
        now=ended,
    )
    if due.fails:
        at = iso_time(ended - timedelta(seconds=9))
        events = [
            make_event(seq, at=at, type_=type_, text=text, data=None)
            for seq, (type_, text) in enumerate(_TOLD, start=1)
        ]
        store_events(worker_id=due.worker_id, run_id=run_id, events=events, now=ended)


def _report(due: _Due, weight: int, share: float) -> dict[str, Any]:
    """Returns what the worker reports at the end of the run."""
    used = {
        "model": "claude-sonnet-4-5",
        "inputTokens": 2_100 * weight,
        "outputTokens": 640 * weight,
        "numTurns": weight,
        "costUsd": f"{share * weight:.6f}",
    }
    if due.fails:
        return {**_REFUSED, **used}
    calls = [
        {
            "at": (due.at + timedelta(seconds=7 + 9 * number)).isoformat(),
            "tool": "search" if number else "list",
            "durationMs": 340 + 110 * number,
            "outcome": "ok",
            "effect": "none",
        }
        for number in range(weight)
    ]
    return {
        **used,
        "status": "succeeded",
        "exitCode": 0,
        "shortMessage": _SAID[due.trigger.name],
        "toolCalls": {"total": weight, "effects": 0, "unknown": 0},
        "toolCallList": calls,
    }
