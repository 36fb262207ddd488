"""Records the events of workers that somebody streams, and reads them for the streams.

The first request for a worker's stream begins the recording, and nothing ends it. So the service writes nothing for
workers that nobody has ever streamed, and a reader who reconnects gets the events of the last hour without a gap.
"""

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from pipedai.api.principal import WorkerPrincipal
from pipedai.events import Actor, Event
from pipedai.server.ticket import StreamTicket
from pipedai.sql import Row, execute, fetch_all, fetch_one
from pipedai.wakeups import announce_events

# The most events that one call of `read_events` returns.
PIECE = 200
# After so many seconds without a call a worker is late, and then gone: it should poll every 30 s or send heartbeats.
LATE_SECONDS, GONE_SECONDS = 90, 180

# How long the ticket remembers which events it has sent: longer than the 30 s that _READ looks through again.
_LOOKED_THROUGH = timedelta(seconds=60)

_RUN_EVENTS = frozenset(
    {
        "run.claimed",
        "run.started",
        "run.completed",
        "run.lost",
        "run.timed-out",
        "run.cancel-requested",
        "run.canceled",
    }
)

# An event's id: 18 digits always fit into a bigint.
_ID = re.compile(r"\d{1,18}", re.ASCII)

_RECORD_RUNS = """
INSERT INTO worker_event (environment_id, worker_id, type, at, data)
SELECT w.environment_id, w.id, e.type, statement_timestamp(),
    jsonb_build_object('runId', r.id, 'triggerId', r.trigger_id, 'status', r.status)
FROM unnest(%(types)s::text[], %(run_ids)s::uuid[]) WITH ORDINALITY e (type, run_id, place)
    JOIN run r ON r.id = e.run_id JOIN worker w ON w.id = r.worker_id AND w.is_streamed
ORDER BY e.place
RETURNING worker_id
"""
_RECORD = """
INSERT INTO worker_event (environment_id, worker_id, type, at, data)
SELECT w.environment_id, w.id, %(type)s, statement_timestamp(), %(data)s::jsonb
FROM worker w WHERE w.id = %(worker_id)s AND w.is_streamed
RETURNING worker_id
"""
# Any stream may record a silence. All of them compute the same moments, so the unique index keeps each to one row.
_RECORD_SILENCE = """
INSERT INTO worker_event (environment_id, worker_id, type, at, data)
SELECT w.environment_id, w.id, s.type, w.last_seen_at + s.after * interval '1 second', '{}'
FROM worker w, (VALUES ('poll.error', %(late)s), ('worker.stopped', %(gone)s)) s (type, after)
WHERE w.id = %(worker_id)s AND w.last_seen_at > statement_timestamp() - interval '1 hour'
    AND w.last_seen_at + s.after * interval '1 second' <= statement_timestamp()
ORDER BY s.after
ON CONFLICT DO NOTHING
"""
_KEEP_FROM_NOW_ON = (
    "UPDATE worker SET is_streamed = true WHERE id = %(worker_id)s AND NOT is_streamed"
)
_NEWEST = "SELECT coalesce(max(id), 0) AS id FROM worker_event WHERE worker_id = %(worker_id)s"
# A transaction with a smaller id may commit after one with a larger id, so the last 30 s are looked through again.
_READ = """
SELECT id, type, at, data FROM worker_event
WHERE worker_id = %(worker_id)s AND id > %(began_after)s AND id <> ALL(%(told)s)
    AND (id > %(newest)s OR at > statement_timestamp() - interval '30 seconds')
    AND at > statement_timestamp() - interval '1 hour'
ORDER BY id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class UnwatchedWorker(Actor):
    """A worker whose events nobody has ever asked for: its calls need no statement that would record them."""


def actor_of_worker(actor: Actor, worker: WorkerPrincipal) -> Actor:
    """The actor of a worker's call, which knows whether the worker's events are to be recorded."""
    if worker.is_streamed:
        return actor
    return UnwatchedWorker(actor.type, actor.id, actor.ip, actor.request_id)


def record_events(events: tuple[Event, ...]) -> None:
    """Keeps those of the domain events that streams tell of, in the transaction that did them."""
    runs = [
        event
        for event in events
        if event.action in _RUN_EVENTS and not isinstance(event.actor, UnwatchedWorker)
    ]
    told: list[Row] = []
    if runs:
        params = {
            "types": [event.action for event in runs],
            "run_ids": [event.target_id for event in runs],
        }
        told += fetch_all(_RECORD_RUNS, params)
    for event in events:
        if event.action == "worker.updated" and "maxConcurrency" in event.metadata:
            new = event.metadata["maxConcurrency"][1]
            told += _record(event.target_id, "concurrency.changed", {"maxConcurrency": new})
        elif event.action == "worker.token-revoked":
            told += _record(event.target_id, "worker.stopped", {})
    announce_events(row["worker_id"] for row in told)


def record_presence(worker_id: UUID, silence_seconds: float | None) -> None:
    """Records that the worker calls again after `silence_seconds`; None means that it never called before."""
    if silence_seconds is None or silence_seconds > GONE_SECONDS:
        type_ = "worker.started"
    elif silence_seconds > LATE_SECONDS:
        type_ = "poll.recovered"
    else:
        return
    announce_events(row["worker_id"] for row in _record(worker_id, type_, {}))


def read_events(ticket: StreamTicket, *, worker_id: UUID, last_event_id: str | None) -> list[Row]:
    """Returns the events that the stream sends next, oldest first, as `id`, `type`, `at` and `data`.

    The ticket remembers which events were sent. A new stream sends the events from now on; with `last_event_id`, also
    those of the last hour that came after it.
    """
    execute(_RECORD_SILENCE, {"worker_id": worker_id, "late": LATE_SECONDS, "gone": GONE_SECONDS})
    if ticket.began_after is None:
        execute(_KEEP_FROM_NOW_ON, {"worker_id": worker_id})
        ticket.began_after = ticket.newest = _beginning(worker_id, last_event_id)
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


def _beginning(worker_id: UUID, last_event_id: str | None) -> int:
    if last_event_id is not None and _ID.fullmatch(last_event_id):
        return int(last_event_id)
    row = fetch_one(_NEWEST, {"worker_id": worker_id})
    assert row is not None
    return int(row["id"])


def _record(worker_id: UUID | None, type_: str, data: dict[str, Any]) -> list[Row]:
    params = {"worker_id": worker_id, "type": type_, "data": json.dumps(data)}
    return fetch_all(_RECORD, params)
