"""Records what happens to workers, for their event streams, and reads these events.

Recording begins with the first request for a worker's stream and never stops. Other workers cause no writes, and a
reader who reconnects misses nothing of the last hour. The stream of an environment's changes (`triggers/changes`)
can't replace this one: it stores nothing, and says only which rows differ from what its reader has seen, not what
happened.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.dispatch import receiver

from pipedai.api.principal import WorkerPrincipal
from pipedai.events import Actor, Event, happened
from pipedai.server.ticket import WorkerStreamTicket
from pipedai.sql import Row, execute, fetch_all, fetch_row
from pipedai.wakeups import announce_events

# The most events that one call of `read_events` returns. The stream calls it again for more.
PIECE = 200
# A worker should call every 30 s. After 90 s of silence `poll.error` is recorded, after 180 s `worker.stopped`.
LATE_SECONDS, GONE_SECONDS = 90, 180

STOPPED = "worker.stopped"

# How long a stream remembers which events it has sent. It must be longer than 30 s, because `_READ` reads the events of
# the last 30 s again each time.
_LOOKED_THROUGH = timedelta(seconds=60)

_RUN_EVENTS = frozenset(
    {
        "run.claimed",
        "run.started",
        "run.waiting",
        "run.completed",
        "run.lost",
        "run.timed-out",
        "run.cancel-requested",
        "run.canceled",
    }
)

# The form of an event's id. A number of 18 digits fits into PostgreSQL's bigint.
_ID = re.compile(r"\d{1,18}", re.ASCII)

_RECORD_RUNS = """
INSERT INTO worker_event (environment_id, worker_id, type, at, data)
SELECT w.environment_id, w.id, e.type, statement_timestamp(),
    jsonb_build_object('runId', r.id, 'triggerId', r.trigger_id, 'status', coalesce(e.status, r.status))
FROM unnest(%(types)s::text[], %(statuses)s::text[], %(run_ids)s::uuid[], %(environment_ids)s::uuid[])
        WITH ORDINALITY e (type, status, run_id, environment_id, position)
    JOIN run r ON r.id = e.run_id AND r.environment_id = e.environment_id
    JOIN worker w ON w.id = r.worker_id AND w.is_streamed
ORDER BY e.position
RETURNING worker_id
"""
_RECORD = """
INSERT INTO worker_event (environment_id, worker_id, type, at, data)
SELECT w.environment_id, w.id, %(type)s, statement_timestamp(), %(data)s::jsonb
FROM worker w WHERE w.id = %(worker_id)s AND w.is_streamed
RETURNING worker_id
"""
# Records that the worker has been silent for too long. Several streams may do this at once: they compute the same time
# `at`, so the unique index lets only one row in.
_RECORD_SILENCE = """
INSERT INTO worker_event (environment_id, worker_id, type, at, data)
SELECT w.environment_id, w.id, s.type, w.last_seen_at + s.after * interval '1 second', '{}'
FROM worker w, (VALUES ('poll.error', %(late)s), ('worker.stopped', %(gone)s)) s (type, after)
WHERE w.id = %(worker_id)s AND w.signed_off_at IS NULL
    AND w.last_seen_at > statement_timestamp() - interval '1 hour'
    AND w.last_seen_at + s.after * interval '1 second' <= statement_timestamp()
ORDER BY s.after
ON CONFLICT DO NOTHING
"""
_KEEP_FROM_NOW_ON = (
    "UPDATE worker SET is_streamed = true WHERE id = %(worker_id)s AND NOT is_streamed"
)
# Finds where a stream begins: after the last event that its reader has (`last_id`), or after the newest one. `told` are
# the events of the last 30 s among those before. The stream does not send them, but others of that time that are not
# visible yet, because their transactions have not committed.
_BEGIN = """
SELECT known.id AS newest, least(known.id, older.id) AS began_after, statement_timestamp() AS now, ARRAY(
    SELECT id FROM worker_event WHERE worker_id = %(worker_id)s AND id > older.id AND id <= known.id) AS told
FROM (
    SELECT coalesce(max(id), 0) AS id FROM worker_event
    WHERE worker_id = %(worker_id)s AND at <= statement_timestamp() - interval '30 seconds') older,
    (SELECT coalesce(%(last_id)s::bigint, max(id), 0) AS id FROM worker_event WHERE worker_id = %(worker_id)s) known
"""
# Reads the events that a stream has not sent yet. An event gets its id before its transaction commits, so an event with
# a smaller id can become visible after an event with a larger id. So events of the last 30 s are read again each time.
_READ = """
SELECT id, type, at, data FROM worker_event
WHERE worker_id = %(worker_id)s AND id > %(began_after)s AND id <> ALL(%(told)s)
    AND (id > %(newest)s OR at > statement_timestamp() - interval '30 seconds')
    AND at > statement_timestamp() - interval '1 hour'
ORDER BY id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class UnwatchedWorker(Actor):
    """The actor of a call by a worker whose events are not recorded. Such a call skips the recording statements."""


def actor_of_worker(actor: Actor, worker: WorkerPrincipal) -> Actor:
    if worker.is_streamed:
        return actor
    return UnwatchedWorker(actor.type, actor.id, actor.ip, actor.request_id)


@receiver(happened, dispatch_uid="workers.record_events")
def record_events(events: tuple[Event, ...], **_: Any) -> None:
    runs = [
        event
        for event in events
        if event.action in _RUN_EVENTS and not isinstance(event.actor, UnwatchedWorker)
    ]
    if runs:
        params = {
            "types": [event.action for event in runs],
            "statuses": [event.metadata.get("status") for event in runs],
            "run_ids": [event.target_id for event in runs],
            "environment_ids": [event.environment_id for event in runs],
        }
        announce_events(row["worker_id"] for row in fetch_all(_RECORD_RUNS, params))
    for event in events:
        if event.action == "worker.updated" and "maxConcurrency" in event.metadata:
            new = event.metadata["maxConcurrency"][1]
            record(event.target_id, "concurrency.changed", {"maxConcurrency": new})
        elif event.action == "worker.token-revoked":
            record(event.target_id, STOPPED)


def record_presence(worker_id: UUID, silence_seconds: float | None) -> None:
    """Records that a worker calls again after this silence, or (None) for the first time or after signing off."""
    if silence_seconds is None or silence_seconds > GONE_SECONDS:
        type_ = "worker.started"
    elif silence_seconds > LATE_SECONDS:
        type_ = "poll.recovered"
    else:
        return
    record(worker_id, type_)


def read_events(
    ticket: WorkerStreamTicket, *, worker_id: UUID, last_event_id: str | None
) -> list[Row]:
    """Returns the next events of a stream as `id`, `type`, `at` and `data`; its `ticket` remembers which were sent. A
    new stream starts with events from now on; with `last_event_id`, it starts after that event, up to an hour back.
    """
    execute(_RECORD_SILENCE, {"worker_id": worker_id, "late": LATE_SECONDS, "gone": GONE_SECONDS})
    if ticket.began_after is None:
        execute(_KEEP_FROM_NOW_ON, {"worker_id": worker_id})
        is_id = last_event_id is not None and _ID.fullmatch(last_event_id)
        begun = fetch_row(
            _BEGIN, {"worker_id": worker_id, "last_id": last_event_id if is_id else None}
        )
        ticket.began_after, ticket.newest = begun["began_after"], begun["newest"]
        now: datetime = begun["now"]
        ticket.told = dict.fromkeys(begun["told"], now)
    rows = fetch_all(
        _READ,
        {
            "worker_id": worker_id,
            "began_after": ticket.began_after,
            "newest": ticket.newest,
            "told": list(ticket.told),
            "limit": PIECE,
        },
    )
    ids = [row["id"] for row in rows]
    ticket.newest = max([ticket.newest, *ids])
    told = ticket.told | {row["id"]: row["at"] for row in rows}
    ticket.told = {id_: at for id_, at in told.items() if at > max(told.values()) - _LOOKED_THROUGH}
    ticket.more = len(rows) == PIECE
    return rows


def record(worker_id: UUID | None, type_: str, data: dict[str, Any] | None = None) -> None:
    """Records that something happened to the worker, in the caller's transaction, if its events were ever streamed."""
    params = {"worker_id": worker_id, "type": type_, "data": json.dumps(data or {})}
    announce_events(row["worker_id"] for row in fetch_all(_RECORD, params))
