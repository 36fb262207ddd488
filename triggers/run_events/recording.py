"""Stores the events that a worker sends about its run: each once, in order, and within the limits."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate, pairwise
from json.encoder import encode_basestring
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound
from pipedai.api.renderers import compact_json, iso_time
from pipedai.sql import NOW, Row, execute, fetch_one
from pipedai.wakeups import announce_events_of_run, watches
from triggers.models.run import MAX_RUN_EVENTS
from triggers.runs.lifecycle import Refused
from triggers.runs.statements import RECORD_EVENTS
from triggers.states import RecordEvents

KIB = 1024
# The most events, and the most bytes of its body, that one call may send.
MAX_CALL_EVENTS, MAX_CALL_BYTES = 500, 256 * KIB
# The most bytes of events that a run stores, and an environment on one day (UTC). The events' JSON in UTF-8 counts.
MAX_RUN_BYTES = 5 * KIB * KIB
MAX_DAY_BYTES = KIB * KIB * KIB
MAX_TYPE = 64
# How long after its end a run still takes events.
TAKEN_AFTER_END = timedelta(hours=24)

# The type of the last stored event of a run whose events reached a limit.
TRUNCATED = "truncated"


class RunEvent(NamedTuple):
    seq: int
    json: str

    @property
    def size(self) -> int:
        return len(self.json.encode())


def make_event(seq: int, *, at: str, type_: str, text: str | None, data: Any) -> RunEvent:
    """Returns an event with its JSON text. `at` is a time in the API's form."""
    # The text is put together by hand, because a JSON encoder takes three times as long for an object. The result
    # equals that of `compact_json`, without line ends.
    type_, told = encode_basestring(type_), "null" if text is None else encode_basestring(text)
    more = "null" if data is None else compact_json(data)
    return RunEvent(seq, f'{{"seq":{seq},"at":"{at}","type":{type_},"text":{told},"data":{more}}}')


def joined(events: Sequence[RunEvent]) -> tuple[str, int]:
    """Returns JSON texts as lines of one text, which PostgreSQL splits faster than Python can make an array, and the
    bytes that count against the limits.
    """
    lines = "\n".join(event.json for event in events)
    return lines, len(lines.encode()) - (len(events) - 1)


def fitting(events: Sequence[RunEvent], room: int) -> Sequence[RunEvent]:
    sums = accumulate(event.size for event in events)
    return events[: sum(total <= room for total in sums)]


# This signal tells how many events a transaction has stored (`count`), and whether a limit was reached
# (`is_truncated`), after its commit. The metrics need it, because storing events emits no domain event.
stored = Signal()

# Whether the trigger `t` lets the run `r` have events: always, or only once it has ended without success.
_IS_ON = f"""({RECORD_EVENTS} = 'always'
    OR (t.record_events = 'failures' AND r.status IN ('failed', 'timed_out', 'canceled')))"""

# Whether no worker has claimed the run `r` yet. A run that a person's decision has queued again was claimed before.
_IS_UNCLAIMED = "(r.status = 'queued' AND r.spells = 0)"

# Stores events in the run's `log`, and adds their bytes to those of the environment's day, unless these would then be
# more than `day_limit`. In that case, or without a row of `log`, the statement changes nothing.
_STORE = """
WITH log AS ({log}),
day AS (
    INSERT INTO run_event_day AS d (environment_id, day, bytes)
    SELECT environment_id, (now AT TIME ZONE 'UTC')::date, %(bytes)s FROM log WHERE %(bytes)s <= %(day_limit)s
    ON CONFLICT (environment_id, day) DO UPDATE SET bytes = d.bytes + excluded.bytes
    WHERE d.bytes + excluded.bytes <= %(day_limit)s
    RETURNING 1),
batch AS (
    INSERT INTO run_event_batch (environment_id, run_id, first_seq, last_seq, stored_at, bytes, events)
    SELECT environment_id, run_id, %(first)s, %(last)s, now, %(bytes)s, string_to_array(%(events)s::text, chr(10))
    FROM log, day
    RETURNING 1)
UPDATE run_event_log l SET next_seq = %(next_seq)s, stored = %(last)s, bytes = l.bytes + %(bytes)s,
    is_truncated = %(is_truncated)s, first_at = least(l.first_at, log.now), last_at = greatest(l.last_at, log.now)
FROM log, batch WHERE l.run_id = log.run_id
"""
# Stores events that are all new and within the limits, which is the usual case, and also checks the worker's token. It
# changes nothing if a condition does not hold: after waiting for another call, `FOR UPDATE` checks them again. A call
# with a new version of the worker's program changes nothing either: its caller notes the version, and then calls
# `store_events`.
_APPEND = _STORE.format(
    log=f"""
    SELECT l.run_id, r.environment_id, {NOW} AS now
    FROM worker w JOIN environment e ON e.id = w.environment_id
    JOIN run r ON r.worker_id = w.id JOIN trigger t ON t.id = r.trigger_id JOIN run_event_log l ON l.run_id = r.id
    WHERE w.token_digest = %(token_digest)s AND w.id = %(worker_id)s AND w.deleted_at IS NULL AND e.deleted_at IS NULL
        AND (%(version)s::text IS NULL OR w.version = %(version)s::text)
        AND r.id = %(run_id)s AND NOT {_IS_UNCLAIMED} AND {_IS_ON}
        AND coalesce(r.ended_at >= {NOW} - %(taken_after_end)s, true)
        AND l.next_seq = %(first)s AND NOT l.is_truncated
        AND %(last)s <= %(most_events)s AND l.bytes + %(bytes)s <= %(most_bytes)s
    FOR UPDATE OF l"""
)
_STORE_IN_LOCKED = _STORE.format(
    log="SELECT run_id, environment_id, %(now)s::timestamptz AS now FROM run_event_log WHERE run_id = %(run_id)s"
)
# Locks the row that counts the run's events, so that calls for one run take turns.
_LOCK = f"""
SELECT r.environment_id, r.status, {_IS_UNCLAIMED} AS is_unclaimed,
    coalesce(r.ended_at < {NOW} - %(taken_after_end)s, false) AS is_over,
    {RECORD_EVENTS} AS record_events, {_IS_ON} AS is_on, l.next_seq, l.stored, l.bytes, l.is_truncated, {NOW} AS now
FROM run_event_log l JOIN run r ON r.id = l.run_id JOIN trigger t ON t.id = r.trigger_id
WHERE l.run_id = %(run_id)s AND r.worker_id = %(worker_id)s
FOR UPDATE OF l
"""
_BEGIN = """
INSERT INTO run_event_log (run_id, environment_id)
SELECT id, environment_id FROM run WHERE id = %(run_id)s AND worker_id = %(worker_id)s
ON CONFLICT DO NOTHING
"""
_SKIP = "UPDATE run_event_log SET next_seq = %(next_seq)s WHERE run_id = %(run_id)s"
_LOCK_DAY = """
SELECT bytes FROM run_event_day
WHERE environment_id = %(environment_id)s AND day = (%(now)s::timestamptz AT TIME ZONE 'UTC')::date
FOR UPDATE
"""

_OFF = {
    RecordEvents.NEVER: "The run's trigger records no events.",
    RecordEvents.FAILURES: "The run's trigger keeps only events of failed runs, after their end, and of watched ones.",
}
_RUN_IS_FULL = "The run has as many events as it may have: 20,000, or 5 MiB. The rest is not kept."
_DAY_IS_FULL = "The environment has 1 GiB of events of this day. The rest of the run is not kept."


def append_events(
    *,
    token_digest: bytes,
    worker_id: UUID,
    version: str | None,
    run_id: UUID,
    events: Sequence[RunEvent],
    now: datetime | None = None,
) -> bool:
    """Stores the events if they are all new, in order, within the limits and not the first of their run, and returns
    whether it did. Otherwise the caller calls `store_events`. `version` is that of the worker's program.
    """
    if not events or not _is_sequence(events):
        return False
    next_seq = events[-1].seq + 1
    checked: dict[str, Any] = {
        "token_digest": token_digest,
        "worker_id": worker_id,
        "version": version,
        "taken_after_end": TAKEN_AFTER_END,
        "most_events": MAX_RUN_EVENTS,
        "most_bytes": MAX_RUN_BYTES,
    }
    return _write(_APPEND, run_id, events, next_seq, now=now, day_limit=MAX_DAY_BYTES, **checked)


def store_events(
    *, worker_id: UUID, run_id: UUID, events: Sequence[RunEvent], now: datetime | None = None
) -> int:
    """Stores the events that are new, and returns the number that the worker's next event must have.

    Events that were stored before are skipped, so a call may be repeated. When a limit is reached, it stores one event
    of the type `truncated`, and only counts everything after it.

    Raises NotFound for another worker's run; Refused if the worker has not claimed the run, or if it ended more than 24
    h ago; Conflict if the trigger's `record_events` keeps the run without events, or if these are not in order or leave
    a gap.
    """
    params = {
        "run_id": run_id,
        "worker_id": worker_id,
        "taken_after_end": TAKEN_AFTER_END,
        "now": now,
    }
    with transaction.atomic():
        log = fetch_one(_LOCK, params)
        if log is None:
            execute(_BEGIN, params)
            log = fetch_one(_LOCK, params)
        if log is None:
            raise NotFound
        _check(log)
        if events and (events[0].seq > log["next_seq"] or not _is_sequence(events)):
            raise Conflict(
                f"The events are not one after the other from number {log['next_seq']} on.",
                code=ErrorCode.EVENT_GAP,
                nextSeq=log["next_seq"],
            )
        new = [event for event in events if event.seq >= log["next_seq"]]
        if new:
            _store(run_id, log, new)
        return int(new[-1].seq + 1 if new else log["next_seq"])


def _check(log: Row) -> None:
    if log["is_unclaimed"]:
        raise Refused("The run is queued: claim it first.", log)
    if log["is_over"]:
        raise Refused("The run ended more than 24 hours ago and takes no more events.", log)
    if not log["is_on"]:
        raise Conflict(_OFF[log["record_events"]], code=ErrorCode.EVENTS_OFF)


def _is_sequence(events: Sequence[RunEvent]) -> bool:
    """Returns whether the numbers follow each other. It builds no range, whose length the caller could choose."""
    return all(after.seq == before.seq + 1 for before, after in pairwise(events))


def _store(run_id: UUID, log: Row, new: list[RunEvent]) -> None:
    next_seq = new[-1].seq + 1
    if log["is_truncated"]:
        execute(_SKIP, {"run_id": run_id, "next_seq": next_seq})
        return
    kept = fitting(new[: MAX_RUN_EVENTS - log["stored"]], MAX_RUN_BYTES - log["bytes"])
    write = partial(_write, _STORE_IN_LOCKED, run_id, next_seq=next_seq, now=log["now"])
    if len(kept) == len(new) and write(kept, day_limit=MAX_DAY_BYTES):
        return
    reason = _RUN_IS_FULL
    # The lock keeps other calls from using up this day's room until the events are stored.
    day = fetch_one(_LOCK_DAY, log)
    within_day = fitting(kept, MAX_DAY_BYTES - (day["bytes"] if day else 0))
    if len(within_day) < len(kept):
        kept, reason = within_day, _DAY_IS_FULL
    at, seq = iso_time(log["now"]), log["stored"] + len(kept) + 1
    marker = make_event(seq, at=at, type_=TRUNCATED, text=reason, data=None)
    # The event that says that a limit was reached is stored beyond the limits.
    write([*kept, marker], day_limit=2**62, is_truncated=True)


def _write(
    statement: str,
    run_id: UUID,
    events: Sequence[RunEvent],
    next_seq: int,
    *,
    day_limit: int,
    is_truncated: bool = False,
    **params: Any,
) -> bool:
    """Stores the events, and returns whether it did. It does not if the environment's day has no room, or if a
    condition that `statement` checks by the further `params` does not hold.
    """
    lines, size = joined(events)
    params |= {
        "run_id": run_id,
        "first": events[0].seq,
        "last": events[-1].seq,
        "bytes": size,
        "events": lines,
        "next_seq": next_seq,
        "is_truncated": is_truncated,
        "day_limit": day_limit,
    }
    if execute(statement, params) == 0:
        return False
    # The metrics and the streams of the run are told after the commit.
    told = partial(stored.send, sender=None, count=len(events), is_truncated=is_truncated)
    transaction.on_commit(told, robust=True)
    if watches.is_watched(run_id):
        announce_events_of_run(run_id)
    return True
