"""Finds out in the scheduler which workers and pools are offline although triggers need them.

A worker that was silent but called again before a scheduler looked has left a row of `worker_silence`. The scheduler
makes one closed incident of it.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import itemgetter

from notices.incidents import Finding, Past, change_incidents, has_no_incident, tell_past
from notices.states import Kind
from pipedai.sql import NOW, Row, fetch_all
from pipedai.turns import Turns, due_rows, found_rows
from triggers.explain.answers import zoned_words
from triggers.heartbeats import LEASES_COUNT, gap_seconds
from workers.presence import IS_NEEDED, LAST_SEEN, OFFLINE_AT, OFFLINE_PARAMS, SILENT_FOR

_IS_PAUSED = (
    "EXISTS (SELECT FROM environment e WHERE e.id = {}.environment_id AND e.paused_at IS NOT NULL)"
)

# Finds the workers that have signed off or been silent for too long. In the ten minutes after an outage of the service
# it finds none, because workers could not reach the service. The statement reads all registered workers, which takes a
# few milliseconds for ten thousand.
_OFFLINE = found_rows(f"""
SELECT w.id, w.environment_id, w.label, w.last_seen_at, w.signed_off_at FROM worker w
WHERE w.deleted_at IS NULL AND w.disabled_at IS NULL AND {OFFLINE_AT} < {NOW} AND {LEASES_COUNT}
    AND {has_no_incident(Kind.WORKER_OFFLINE, "w")}
    AND {IS_NEEDED} AND NOT {_IS_PAUSED.format("w")}
""")  # noqa: S608

# Finds the workers with an open incident that are back, disabled or deleted, that no enabled trigger needs any more,
# or whose environment is paused.
_OVER = found_rows(f"""
SELECT w.id, w.environment_id, w.disabled_at IS NULL AND w.deleted_at IS NULL AND {OFFLINE_AT} >= {NOW} AS is_back
FROM incident i JOIN worker w ON w.id = i.subject_id
WHERE i.kind = %(kind)s AND i.closed_at IS NULL
    AND (w.deleted_at IS NOT NULL OR w.disabled_at IS NOT NULL OR {OFFLINE_AT} >= {NOW}
        OR NOT {IS_NEEDED} OR {_IS_PAUSED.format("w")})
""")  # noqa: S608


def _latest_of_pool(moment: str) -> str:
    """Returns the SQL of the latest of these times among the enabled workers `w` of the pool `p`. NULL if there are
    none.
    """
    return f"""(
        SELECT max({moment}) FROM pool_member m JOIN worker w ON w.id = m.worker_id
        WHERE m.pool_id = p.id AND w.disabled_at IS NULL)"""  # noqa: S608


_POOL_OFFLINE_AT = _latest_of_pool(OFFLINE_AT)
_HAS_WORKERS = "EXISTS (SELECT FROM pool_member m WHERE m.pool_id = p.id)"
_POOL_IS_SILENT = f"""coalesce({_POOL_OFFLINE_AT} < {NOW},
        NOT {_HAS_WORKERS} AND p.created_at < {NOW} - %(silent_for)s)"""
_POOL_IS_NEEDED = """EXISTS (
    SELECT FROM trigger t
    WHERE t.pool_id = p.id AND t.environment_id = p.environment_id AND t.enabled AND t.deleted_at IS NULL)"""

# Finds the pools without workers, and those whose workers have all signed off or been silent for too long. A pool whose
# workers are all disabled is left out, because somebody has decided so.
_POOLS_OFFLINE = found_rows(f"""
SELECT p.id, p.environment_id, p.name, {_HAS_WORKERS} AS has_workers, {_latest_of_pool(LAST_SEEN)} AS last_seen_at
FROM pool p
WHERE p.deleted_at IS NULL AND {LEASES_COUNT}
    AND {has_no_incident(Kind.POOL_OFFLINE, "p")}
    AND {_POOL_IS_NEEDED} AND NOT {_IS_PAUSED.format("p")} AND {_POOL_IS_SILENT}
""")  # noqa: S608

# Finds the pools with an open incident that can be closed: a worker is back, or the pool raises no incidents any more.
_POOLS_OVER = found_rows(f"""
SELECT p.id, p.environment_id, coalesce({_POOL_OFFLINE_AT} >= {NOW}, false) AS is_back
FROM incident i JOIN pool p ON p.id = i.subject_id
WHERE i.kind = %(kind)s AND i.closed_at IS NULL
    AND (p.deleted_at IS NOT NULL OR NOT {_POOL_IS_SILENT} OR NOT {_POOL_IS_NEEDED} OR {_IS_PAUSED.format("p")})
""")  # noqa: S608

# Deletes the rows of ended silences, so that each is told only once, and says of each whether to tell people. It is not
# told if an incident told it already, or if the worker is disabled or deleted by now. A silence is matched to its
# incident by time: the incident is opened ten minutes after the last call or later, or after the worker signed off, and
# one about the next silence is opened at least a minute after this one ended.
_ENDED = due_rows("worker_silence", waits="true", order="id", is_due=False)
_TAKE = """
WITH s AS (DELETE FROM worker_silence WHERE id = ANY(%(ids)s) RETURNING *)
SELECT s.worker_id, s.environment_id, w.label, s.last_seen_at, s.offline_at, s.ended_at,
    w.deleted_at IS NULL AND w.disabled_at IS NULL AND NOT EXISTS (
        SELECT FROM incident i
        WHERE i.subject_id = s.worker_id AND i.kind = %(kind)s AND i.environment_id = s.environment_id
            AND i.opened_at >= least(coalesce(s.last_seen_at, w.created_at) + %(silent_for)s, s.offline_at)
            AND i.opened_at < s.ended_at + %(restarts_within)s) AS is_to_be_told
FROM s JOIN worker w ON w.id = s.worker_id
ORDER BY s.worker_id, s.id
"""


def find_offline_workers(*, limit: int = 200, now: datetime | None = None) -> int:
    """Opens incidents for up to `limit` offline workers, and closes those of workers that are back or no longer needed.
    It also announces silences that ended before. Returns how many silences and incidents there were.
    """
    looked_at = _ENDED.take(partial(_tell_missed, now=now), limit=limit, now=now)
    return looked_at + _change(
        Kind.WORKER_OFFLINE, _OFFLINE, _OVER, _of_worker, limit=limit, now=now
    )


def find_offline_pools(*, limit: int = 200, now: datetime | None = None) -> int:
    """Opens incidents for up to `limit` pools whose workers have all been silent for ten minutes, and closes those of
    pools that are back or no longer needed. Returns how many.
    """
    return _change(Kind.POOL_OFFLINE, _POOLS_OFFLINE, _POOLS_OVER, _of_pool, limit=limit, now=now)


def _change(
    kind: Kind,
    offline: Turns,
    over: Turns,
    finding: Callable[[Row], Finding],
    *,
    limit: int,
    now: datetime | None,
) -> int:
    """Opens incidents for the rows of `offline`, and closes those of the rows of `over`. Returns how many."""
    params = {
        **OFFLINE_PARAMS,
        "kind": kind.value,
        "gap": gap_seconds(),
        "grace": SILENT_FOR.total_seconds(),
    }

    def open_(rows: list[Row]) -> int:
        return change_incidents(kind, begun=[finding(row) for row in rows], now=now)

    def close(rows: list[Row]) -> int:
        return change_incidents(
            kind,
            recovered=[row["id"] for row in rows if row["is_back"]],
            withdrawn=[row["id"] for row in rows if not row["is_back"]],
            now=now,
        )

    opened = offline.take(open_, limit=limit, now=now, **params)
    return opened + over.take(close, limit=limit, now=now, **params)


def _of_pool(row: Row) -> Finding:
    message = "The pool has no machines."
    if row["has_workers"]:
        message = f"No machine of the pool has called since {zoned_words(row['last_seen_at'])}."
    return Finding(row["environment_id"], row["id"], row["name"], message)


def _of_worker(row: Row) -> Finding:
    seen = row["last_seen_at"]
    who = "The machine" if row["signed_off_at"] is None else "The machine signed off, and"
    message = (
        "The machine has never called."
        if seen is None
        else f"{who} has not called since {zoned_words(seen)}."
    )
    return Finding(row["environment_id"], row["id"], row["label"], message)


def _tell_missed(ended: list[Row], now: datetime | None) -> int:
    """Takes these ended silences, and announces those without an incident. Returns how many it took."""
    params = {
        "ids": [row["id"] for row in ended],
        "kind": Kind.WORKER_OFFLINE.value,
        **OFFLINE_PARAMS,
    }
    rows = fetch_all(_TAKE, params)
    untold = (row for row in rows if row["is_to_be_told"])
    past = [_past(list(each)) for _, each in groupby(untold, key=itemgetter("worker_id"))]
    tell_past(Kind.WORKER_OFFLINE, past, now=now)
    return len(rows)


def _past(silences: list[Row]) -> Past:
    """Returns the silences of one worker as one, from the beginning of the first to the end of the last."""
    first, last = silences[0], silences[-1]
    seen = first["last_seen_at"]
    message = (
        (
            "The machine had never called"
            if seen is None
            else f"The machine did not call after {zoned_words(seen)}"
        )
        + (f", and was silent {len(silences):,} times" if len(silences) > 1 else "")
        + f" until it called at {zoned_words(last['ended_at'])}, before a scheduler noticed."
    )
    finding = Finding(first["environment_id"], first["worker_id"], first["label"], message)
    # If the database's clock was put back, the last silence may have ended before the first one began.
    return Past(finding, first["offline_at"], max(each["ended_at"] for each in silences))
