"""What the app adds to the service: jobs, webhooks, probes, retention, dependents and receivers."""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.dispatch import receiver

from pipedai.checks import register_probe
from pipedai.events import Event, emit, happened
from pipedai.loop import Job, register_job
from pipedai.outgoing.pool import register_kind
from pipedai.retention import Retention, register_retention, rows_where
from pipedai.server.heart import register_beat
from pipedai.sql import fetch_all, fetch_by_ids
from pipedai.wakeups import wake_workers
from triggers import files  # noqa: F401 - importing it registers the kinds of files
from triggers.changes import (
    Kind,
    State,
    read_watches,  # importing it also subscribes it
    register_changing,
)
from triggers.deployment import schedulers_live, work_is_on_time
from triggers.events.deciding import decide_ends
from triggers.heartbeats import beat_of_this_process
from triggers.locks import lock_workers
from triggers.models import Approval, EventSource, Run, Trigger
from triggers.pruning import (
    AT_LEAST_DAYS,
    add_partitions,
    drop_partitions,
    prune_deliveries,
    prune_revisions,
    prune_runs,
)
from triggers.runs import statements as sql
from triggers.runs.conditions import IS_COUNTED_AS_QUEUED
from triggers.runs.ending import run_event
from triggers.runs.lifecycle import expire_queued_runs, expire_runs
from triggers.runs.routing import wake_for
from triggers.schedules.firing import fire_due_ticks
from triggers.webhooks.sending import WEBHOOKS
from workspaces.connections.models import Connection
from workspaces.services import register_dependents

# How many days a window is kept after its end: two years, so that the same month of the year before can be looked up.
_WINDOW_DAYS = 731

# The most runs whose workers are woken. The others are found soon, because waiting polls also ask on a timer.
_MOST_WOKEN = 1_000

_WAITING = f"""
SELECT r.worker_id, r.pool_id FROM trigger t JOIN run r ON r.trigger_id = t.id
WHERE t.connection_id = ANY(%(ids)s) AND {IS_COUNTED_AS_QUEUED} LIMIT {_MOST_WOKEN}
"""  # noqa: S608 - our own condition

# A window stays as long as a run whose reservation names it, and until its last notice is settled. No audit row is
# written, because the API shows only present windows.
prune_windows = rows_where(
    "budget_window",
    "t.ends_at < %(before)s AND t.noticed_pct = 0 AND NOT t.is_changed"
    " AND NOT EXISTS (SELECT FROM run_reservation x WHERE x.window_id = t.id)",
    by="t.ends_at",
)

# Events that nobody has decided yet stay. Decisions go with their events. No audit row is written, because the runs
# that an event started have audit rows of their own.
prune_events = rows_where(
    "event",
    "t.received_at < %(before)s AND t.decided_at IS NOT NULL",
    by="t.received_at",
)

# Pruning keys writes no audit row, because an expired key has no effect.
prune_event_keys = rows_where(
    "event_key", "t.expires_at < %(before)s", by="t.expires_at", key=("source_id", "key")
)

prune_refused_requests = rows_where(
    "refused_request", "t.hour < %(before)s", by="t.hour", key=("source_id", "reason", "hour")
)

prune_idempotency_keys = rows_where(
    "idempotency_key",
    "t.created_at < %(before)s",
    by="t.created_at",
    key=("trigger_id", "caller_id", "key"),
)


def _states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    """Returns the state of each run. The worker of a claimed or ended run has changed as well, and so has what a run
    last asked a person for, when the run asks or ends.
    """
    named = [(environment_id, id_) for id_ in ids]
    rows = fetch_by_ids("run", ("id", "status", "worker_id", "spells"), named)
    waited = [row["id"] for row in rows if row["spells"]]
    approvals = Approval.objects.filter(environment_id=environment_id, run_id__in=waited)
    last = approvals.order_by("run_id", "-created_at", "-id").distinct("run_id")
    asked = dict(last.values_list("run_id", "id")) if waited else {}
    return [
        State(
            row["id"],
            row["status"],
            tuple(
                (kind, id_)
                for kind, id_ in (("worker", row["worker_id"]), ("approval", asked.get(row["id"])))
                if id_ is not None
            ),
        )
        for row in rows
    ]


def _connection_states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    rows = Connection.objects.filter(environment_id=environment_id, id__in=ids)
    return [State(id_, status) for id_, status in rows.values_list("id", "status")]


def _approval_states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    """Returns the state of each approval. After a decision the run that asked has changed as well."""
    rows = Approval.objects.filter(environment_id=environment_id, id__in=ids)
    return [
        State(id_, status, (("run", run_id),))
        for id_, status, run_id in rows.values_list("id", "status", "run_id")
    ]


def _source_states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    rows = sources.filter(environment_id=environment_id, id__in=ids).values_list("id", "enabled")
    return [State(id_, "enabled" if enabled else "disabled") for id_, enabled in rows]


@receiver(happened, dispatch_uid="triggers.wake_for_connection")
def wake(events: Iterable[Event], **_: Any) -> None:
    ids = [event.target_id for event in events if event.action == "connection.authorized"]
    if ids:
        wake_for(fetch_all(_WAITING, {"ids": ids}))


@receiver(happened, dispatch_uid="triggers.pause")
def pause(events: Iterable[Event], **_: Any) -> None:
    """Waits for the claims of an environment that was just paused, so that none ends after the commit, and cancels its
    runs if the user asked for that. Wakes the workers of an environment that was resumed.
    """
    for event in events:
        if event.action != "environment.updated":
            continue
        if "paused" in event.metadata:
            assert event.environment_id is not None, "the event is about an environment"
            wake_workers(lock_workers(event.environment_id))
        if event.metadata.get("cancelHeld"):
            params = {"environment_id": event.environment_id, "now": None}
            runs = fetch_all(sql.REQUEST_CANCEL_OF_HELD, params)
            emit(*(run_event("run.cancel-requested", event.actor, run) for run in runs))
            wake_workers([run["worker_id"] for run in runs])


register_probe("schedulers", schedulers_live)

register_probe("background", work_is_on_time)

register_beat(beat_of_this_process)

for job in (
    Job(
        "fire-ticks",
        0.25,
        fire_due_ticks,
        does="Decides about due times of triggers, and queues their runs.",
        turns="due triggers",
    ),
    Job(
        "decide-ends",
        0.25,
        decide_ends,
        does="Decides what the ends of runs start.",
        turns="events that nobody has decided yet",
    ),
    Job(
        "expire-runs",
        1.0,
        expire_runs,
        does="Ends the held runs whose lease or deadline has passed, and queues their retries.",
        turns="held runs that are overdue",
    ),
    Job(
        "expire-queued-runs",
        1.0,
        expire_queued_runs,
        does="Ends the runs that waited too long for a worker or for a decision.",
        turns="runs that nobody may claim any more",
    ),
    Job(
        "read-watches",
        1.0,
        read_watches,
        does="Learns which environments somebody streams.",
        alone="It reads one row for each open stream.",
    ),
    Job(
        "add-run-event-partitions",
        3600.0,
        add_partitions,
        does="Makes the partitions of run events of the next days.",
        alone="The partitions belong to all tenants.",
    ),
):
    register_job(job)

register_changing(Kind("run", _states))

register_changing(Kind("connection", _connection_states))

register_changing(Kind("approval", _approval_states))

register_changing(Kind("source", _source_states))

register_kind(WEBHOOKS)

triggers = Trigger.objects.filter(deleted_at__isnull=True)

runs = Run.objects.filter(ended_at__isnull=True)

sources = EventSource.objects.filter(deleted_at__isnull=True)

register_dependents("trigger", lambda id_: triggers.filter(environment_id=id_).count())

register_dependents("unfinished run", lambda id_: runs.filter(environment_id=id_).count())

register_dependents("source", lambda id_: sources.filter(environment_id=id_).count())

register_retention(
    Retention(
        "runs",
        "ended runs with their texts, ticks and deliveries",
        lambda: settings.RUN_RETENTION_DAYS or None,
        prune_runs,
    ),
    Retention(
        "deliveries",
        "webhooks that were delivered or given up, with their attempts",
        lambda: settings.DELIVERY_RETENTION_DAYS or None,
        prune_deliveries,
    ),
    Retention(
        "revisions",
        "former prompts of triggers that no run refers to, but for the last 50 of each trigger",
        lambda: 1,
        prune_revisions,
    ),
    Retention(
        "run-events",
        "days of run events",
        lambda: settings.RUN_EVENTS_DAYS,
        drop_partitions,
        at_least=AT_LEAST_DAYS,
    ),
    Retention(
        "idempotency-keys",
        "remembered Idempotency-Keys, which count for a day",
        lambda: 1,
        prune_idempotency_keys,
    ),
    Retention(
        "events",
        "events of sources with their bodies, and what was decided about them",
        lambda: settings.INBOUND_EVENTS_DAYS,
        prune_events,
    ),
    Retention(
        "event-keys",
        "by what old events are known again, a day after that has ended",
        lambda: 1,
        prune_event_keys,
    ),
    Retention(
        "refused-requests",
        "counts of the requests that sources refused, which are shown for a day",
        lambda: 1,
        prune_refused_requests,
    ),
    Retention(
        "budget-windows",
        "past days and months of budgets, whose runs are removed",
        lambda: _WINDOW_DAYS,
        prune_windows,
    ),
)
