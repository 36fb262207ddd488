"""Counts the requests that sources refuse, by reason and hour, so that people see why no events come.

A process writes the first refusals of a source and reason at once. During a flood it adds them up and writes once a
second, so that a stranger who knows the URL of a source can't keep the database busy. What was not written yet is added
to the next write.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from uuid import UUID

from pipedai.api.exceptions import unless_read_only
from pipedai.api.throttling import Buckets, Rate
from pipedai.sql import Row, execute, fetch_all
from pipedai.wakeups import announce_things, watches
from triggers.states import EventDecided, Refusal

_writes = Buckets(Rate("refusals-of-source", limit=1, seconds=1), 20, most=10_000)

_unwritten: Counter[tuple[UUID, Refusal]] = Counter()

_lock = threading.Lock()

_COUNT = """
INSERT INTO refused_request AS kept (source_id, environment_id, reason, hour, count, last_at)
VALUES (%(source_id)s, %(environment_id)s, %(reason)s, date_trunc('hour', statement_timestamp(), 'UTC'), %(count)s,
    statement_timestamp())
ON CONFLICT (source_id, reason, hour) DO UPDATE
SET count = kept.count + excluded.count, last_at = greatest(kept.last_at, excluded.last_at)
"""

# Reads what was refused in the present hour and the 23 before it.
_LAST_DAY = """
SELECT source_id, reason, sum(count)::bigint AS count, max(last_at) AS last_at FROM refused_request
WHERE source_id = ANY(%(ids)s) AND hour > statement_timestamp() - interval '24 hours'
GROUP BY source_id, reason ORDER BY last_at DESC, reason
"""

# Looks up one type after the other by the index `event_types`, 200 at most, because a sender may make up any number.
_TYPES = """
SELECT s.id AS source_id, t.type FROM unnest(%(ids)s::uuid[]) s (id) CROSS JOIN LATERAL (
    WITH RECURSIVE seen AS (
        (SELECT type, received_at, 1 AS number FROM event
        WHERE source_id = s.id AND type IS NOT NULL ORDER BY type, received_at DESC LIMIT 1)
        UNION ALL
        SELECT n.type, n.received_at, number + 1 FROM seen CROSS JOIN LATERAL (
            SELECT type, received_at FROM event
            WHERE source_id = s.id AND type > seen.type ORDER BY type, received_at DESC LIMIT 1) n
        WHERE number < 200)
    SELECT type, received_at FROM seen WHERE received_at > statement_timestamp() - interval '14 days'
    ORDER BY received_at DESC, type LIMIT 50) t
ORDER BY t.received_at DESC, t.type
"""

# At most this many requests of an hour are counted: a picture needs no more, and a sender may send any number.
MOST_IN_HOUR = 100
_IN_HOUR = (
    f"received_at >= h.hour AND received_at < h.hour + interval '1 hour' LIMIT {MOST_IN_HOUR}"
)
_TAKEN = f"SELECT FROM event WHERE source_id = s.id AND {_IN_HOUR}"
_STARTED = " UNION ".join(
    f"(SELECT DISTINCT received_at, event_id FROM event_decision WHERE source_id = s.id"  # noqa: S608
    f" AND decision = '{decision}' AND {_IN_HOUR})"
    for decision in (EventDecided.FIRED, EventDecided.COALESCED)
)
_BY_HOUR = f"""
SELECT h.hour, s.id AS source_id, least(coalesce(r.count, 0), {MOST_IN_HOUR}) AS refused,
    (SELECT count(*) FROM ({_TAKEN}) e) AS taken,
    (SELECT least(count(*), {MOST_IN_HOUR}) FROM ({_STARTED}) d) AS started
FROM unnest(%(ids)s::uuid[]) s (id)
CROSS JOIN generate_series(date_trunc('hour', statement_timestamp(), 'UTC') - interval '23 hours',
    statement_timestamp(), '1 hour') h (hour)
LEFT JOIN (SELECT source_id, hour, sum(count) AS count FROM refused_request
    WHERE source_id = ANY(%(ids)s) AND hour > statement_timestamp() - interval '24 hours' GROUP BY 1, 2) r
    ON r.source_id = s.id AND r.hour = h.hour
ORDER BY h.hour
"""  # noqa: S608


def count_refusal(source: Row, reason: Refusal) -> None:
    """Counts a refused request of a source that exists."""
    key = (source["source_id"], reason)
    with _lock:
        _unwritten[key] += 1
        if _writes.take(key, now=time.monotonic()):
            return
        number = _unwritten.pop(key)
    with unless_read_only():
        execute(_COUNT, {**source, "reason": reason, "count": number})
        tell_source(source)


def tell_source(source: Row) -> None:
    """Tells pages that show the source, when the transaction commits, that a request came."""
    if watches.is_watched(source["environment_id"]):
        announce_things(source["environment_id"], "source", [source["source_id"]])


def with_history(rows: Collection[Row]) -> list[Row]:
    """Adds to each source the types of its events of the last 14 days, and what it refused in the last day."""
    ids = {"ids": [row["id"] for row in rows]}
    types: defaultdict[UUID, list[str]] = defaultdict(list)
    refused: defaultdict[UUID, list[Row]] = defaultdict(list)
    for row in fetch_all(_TYPES, ids):
        types[row["source_id"]].append(row["type"])
    for row in fetch_all(_LAST_DAY, ids):
        refused[row["source_id"]].append(row)
    return [{**row, "types_seen": types[row["id"]], "refused": refused[row["id"]]} for row in rows]


def with_hours(sources: list[Row]) -> list[Row]:
    """Adds `recent` to sources, in the API's form: what each took, started and refused in each of 24 hours, the present
    one last. It takes one query.
    """
    recent: dict[UUID, Row] = {
        each["id"]: {"taken": [], "started": [], "refused": []} for each in sources
    }
    for row in fetch_all(_BY_HOUR, {"ids": [*recent]}) if recent else ():
        for name, numbers in recent[row["source_id"]].items():
            numbers.append(int(row[name]))
    return [{**each, "recent": recent[each["id"]]} for each in sources]
