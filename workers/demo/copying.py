"""Writes made-up runs into the database by COPY, with the rows that a real run leaves in other tables."""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.db import connection
from psycopg import sql

from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.sql import Row
from triggers.states import EndedBy, Source, Status
from triggers.webhooks.outbox import body_of
from workers.demo.story import RUN_COLUMNS, Ids, time_of

_RECENT_SECONDS = 300
_EVENTS_AT_ONCE = 5000


def copy_slice(
    runs: Sequence[Row],
    skipped: Sequence[tuple[Any, int]],
    *,
    webhooks: Mapping[UUID, str | None],
    mcp_urls: Mapping[UUID, str],
    keys: Mapping[UUID, UUID],
    user_id: UUID,
    until: float,
    whole_story: bool,
    rng: random.Random,
    ids: Ids,
) -> None:
    """Inserts the made-up runs of a slice, and what belongs to them. `skipped` are due times without a run, as
    (trigger, seconds since 1970). Without `whole_story` the audit log gets only the ends of runs, because all steps
    would take four times the space of the runs.
    """
    deliveries: list[Row] = []
    attempts: list[Row] = []
    for run in runs:
        if run["ended_at"] is not None and (url := webhooks[run["trigger_id"]]):
            delivery = _delivery(run, url, until, rng, ids)
            deliveries.append(delivery)
            attempts += _attempts(delivery, rng)
    _copy("run", runs, RUN_COLUMNS)
    _copy("run_text", [_text(run, mcp_urls) for run in runs if _has_text(run)])
    fired = [run for run in runs if run["source"] == Source.SCHEDULE]
    _copy(
        "tick",
        [
            _tick(run["environment_id"], run["trigger_id"], run["scheduled_for"], ids, run)
            for run in fired
        ],
    )
    _copy(
        "tick", [_tick(each.environment_id, each.id, time_of(tick), ids) for each, tick in skipped]
    )
    _copy("delivery", deliveries)
    _copy("delivery_attempt", attempts)
    events: list[Event] = []
    for run in runs:
        steps = list(_events_of(run, keys, user_id))
        events += steps if whole_story else steps[-1:]
        if len(events) >= _EVENTS_AT_ONCE:
            emit(*events)
            events = []
    emit(*events)


def _copy(table: str, rows: Sequence[Row], columns: Sequence[str] = ()) -> None:
    """Insert rows with these columns, or with all that they have."""
    if not rows:
        return
    columns = columns or list(rows[0])
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row([row[column] for column in columns])


def _has_text(run: Row) -> bool:
    return bool(run["claimed_at"] or run["payload"] or run["error_message"])


def _text(run: Row, mcp_urls: Mapping[UUID, str]) -> Row:
    handed_out = run["claimed_at"] is not None
    return {
        "run_id": run["id"],
        "environment_id": run["environment_id"],
        "mcp_url": mcp_urls[run["trigger_id"]] if handed_out else None,
        "payload": run["payload"],
        "error_message": run["error_message"],
    }


def _tick(
    environment_id: UUID, trigger_id: UUID, at: datetime, ids: Ids, run: Row | None = None
) -> Row:
    """Return the row of a due time that started this run; with None it started none, as the one before went on."""
    return {
        "id": ids.at(at.timestamp()), "environment_id": environment_id, "trigger_id": trigger_id,
        "tick_at": at, "last_tick_at": at, "decision": "fired" if run else "skipped_overlap",
        "run_id": run and run["id"], "missed_count": 0, "decided_at": run["queued_at"] if run else at,
    }  # fmt: skip


def _delivery(run: Row, url: str, until: float, rng: random.Random, ids: Ids) -> Row:
    ended = run["ended_at"].timestamp()
    delivery_id = ids.at(ended)
    waits = ended > until - _RECENT_SECONDS
    dead = not waits and rng.random() < 0.03
    tries = 0 if waits else 7 if dead else 1 if rng.random() < 0.95 else 2
    last = run["ended_at"] + timedelta(seconds=1 + 10 * max(0, tries - 1))
    return {
        "id": delivery_id,
        "environment_id": run["environment_id"],
        "trigger_id": run["trigger_id"],
        "run_id": run["id"],
        "message_id": f"msg_{delivery_id.hex}",
        "url": url,
        "host": urlsplit(url).hostname,
        "body": body_of(run),
        "status": "pending" if waits else "dead" if dead else "delivered",
        "next_attempt_at": run["ended_at"] if waits else None,
        "attempt_count": tries,
        "created_at": run["ended_at"],
        "delivered_at": None if waits or dead else last,
    }


def _attempts(delivery: Row, rng: random.Random) -> Iterator[Row]:
    for n in range(1, delivery["attempt_count"] + 1):
        succeeded = delivery["status"] == "delivered" and n == delivery["attempt_count"]
        yield {
            "delivery_id": delivery["id"],
            "n": n,
            "environment_id": delivery["environment_id"],
            "at": delivery["created_at"] + timedelta(seconds=1 + 10 * (n - 1)),
            "status_code": 200 if succeeded else 503,
            "duration_ms": rng.randint(20, 900),
            "error": None,
            "response_body": "ok" if succeeded else "unavailable",
        }


def _events_of(run: Row, keys: Mapping[UUID, UUID], user_id: UUID) -> Iterator[Event]:
    """Yields the domain events of a run's steps, from which the audit log is written, in order of time."""
    worker, trigger_id = Actor("worker", run["worker_id"]), str(run["trigger_id"])

    def event(action: str, actor: Actor, at: Any, **metadata: Any) -> Event:
        return Event(action, actor, run["environment_id"], "run", run["id"], metadata, at)

    if run["source"] == Source.RETRY:
        yield event(
            "run.retried", SYSTEM, run["queued_at"], retryOf=str(run["retry_of_id"]), attempt=run["attempt"]
        )  # fmt: skip
    elif run["source"] == Source.SCHEDULE:
        tick_at = run["scheduled_for"].isoformat()
        yield event("run.scheduled", SYSTEM, run["queued_at"], triggerId=trigger_id, tickAt=tick_at)
    else:
        is_api = run["source"] == Source.API
        actor = Actor("api_key", keys[run["environment_id"]]) if is_api else Actor("user", user_id)
        made = {"triggerId": trigger_id, "status": "queued", "source": str(run["source"])}
        yield event("run.created", actor, run["queued_at"], **made)
    for action, moment, status in (
        ("run.claimed", run["claimed_at"], "claimed"),
        ("run.started", run["started_at"], "running"),
    ):
        if moment is not None:
            yield event(action, worker, moment, triggerId=trigger_id, status=status)
    if run["ended_at"] is not None:
        action, actor = _ending(run, worker, user_id)
        ending = {"status": str(run["status"]), "faultClass": str(run["fault_class"])}
        yield event(action, actor, run["ended_at"], triggerId=trigger_id, **ending)


def _ending(run: Row, worker: Actor, user_id: UUID) -> tuple[str, Actor]:
    if run["ended_by"] == EndedBy.LEASE:
        return "run.lost", SYSTEM
    if run["ended_by"] == EndedBy.DEADLINE:
        return "run.timed-out", SYSTEM
    if run["status"] == Status.CANCELED:
        return "run.canceled", Actor("user", user_id) if run["ended_by"] == EndedBy.USER else worker
    return "run.completed", worker
