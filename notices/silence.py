"""Finds out in the scheduler which workers and pools are offline although triggers need them (SPEC §14)."""

from datetime import datetime

from django.db import transaction

from notices.incidents import Finding, change_incidents
from notices.missed_silence import tell_missed_silences
from notices.states import Kind, SubjectType
from pipedai.api.renderers import iso_time
from pipedai.sql import NOW, Row, fetch_all
from triggers.runs.reachability import LEASES_COUNT, gap_seconds
from workers.silence import IS_NEEDED, LAST_SEEN, SILENT_FOR

_IS_PAUSED = (
    "EXISTS (SELECT FROM environment e WHERE e.id = {}.environment_id AND e.paused_at IS NOT NULL)"
)

# Finds the workers that have been silent for too long. After an outage of the service it finds none for that long,
# because workers could not reach the service. The statement reads all registered workers, which takes a few
# milliseconds for ten thousand.
_OFFLINE = f"""
SELECT w.id, w.environment_id, w.label, w.last_seen_at FROM worker w
WHERE w.deleted_at IS NULL AND w.disabled_at IS NULL AND {LAST_SEEN} < {NOW} - %(silent_for)s AND {LEASES_COUNT}
    AND NOT EXISTS (
        SELECT FROM incident i
        WHERE i.subject_id = w.id AND i.kind = %(kind)s AND i.environment_id = w.environment_id
            AND i.closed_at IS NULL)
    AND {IS_NEEDED} AND NOT {_IS_PAUSED.format("w")}
LIMIT %(limit)s
"""  # noqa: S608

# Finds the workers with an open incident that are back, disabled or deleted, that no enabled trigger needs any more,
# or whose environment is paused.
_OVER = f"""
SELECT w.id, w.disabled_at IS NULL AND w.deleted_at IS NULL AND {LAST_SEEN} >= {NOW} - %(silent_for)s AS is_back
FROM incident i JOIN worker w ON w.id = i.subject_id
WHERE i.kind = %(kind)s AND i.closed_at IS NULL
    AND (w.deleted_at IS NOT NULL OR w.disabled_at IS NOT NULL OR {LAST_SEEN} >= {NOW} - %(silent_for)s
        OR NOT {IS_NEEDED} OR {_IS_PAUSED.format("w")})
LIMIT %(limit)s
"""  # noqa: S608

# When a worker of the pool `p` last called. Disabled workers do not count. NULL if the pool has no other workers.
_POOL_SEEN = f"""(
        SELECT max({LAST_SEEN}) FROM pool_member m JOIN worker w ON w.id = m.worker_id
        WHERE m.pool_id = p.id AND w.disabled_at IS NULL)"""  # noqa: S608
_HAS_WORKERS = "EXISTS (SELECT FROM pool_member m WHERE m.pool_id = p.id)"
_POOL_IS_SILENT = f"""coalesce({_POOL_SEEN} < {NOW} - %(silent_for)s,
        NOT {_HAS_WORKERS} AND p.created_at < {NOW} - %(silent_for)s)"""
_POOL_IS_NEEDED = """EXISTS (
    SELECT FROM trigger t
    WHERE t.pool_id = p.id AND t.environment_id = p.environment_id AND t.enabled AND t.deleted_at IS NULL)"""

# Finds the pools without workers, and those whose workers have all been silent for too long. If all workers of a pool
# are disabled, somebody has decided so, and nobody is told.
_POOLS_OFFLINE = f"""
SELECT p.id, p.environment_id, p.name, {_HAS_WORKERS} AS has_workers, {_POOL_SEEN} AS last_seen_at FROM pool p
WHERE p.deleted_at IS NULL AND {LEASES_COUNT}
    AND NOT EXISTS (
        SELECT FROM incident i
        WHERE i.subject_id = p.id AND i.kind = %(kind)s AND i.environment_id = p.environment_id
            AND i.closed_at IS NULL)
    AND {_POOL_IS_NEEDED} AND NOT {_IS_PAUSED.format("p")} AND {_POOL_IS_SILENT}
LIMIT %(limit)s
"""  # noqa: S608

# Finds the pools with an open incident of which a worker is back, or about which nobody is told any more.
_POOLS_OVER = f"""
SELECT p.id, coalesce({_POOL_SEEN} >= {NOW} - %(silent_for)s, false) AS is_back
FROM incident i JOIN pool p ON p.id = i.subject_id
WHERE i.kind = %(kind)s AND i.closed_at IS NULL
    AND (p.deleted_at IS NOT NULL OR NOT {_POOL_IS_SILENT} OR NOT {_POOL_IS_NEEDED} OR {_IS_PAUSED.format("p")})
LIMIT %(limit)s
"""  # noqa: S608


def find_offline_workers(*, limit: int = 200, now: datetime | None = None) -> int:
    """Opens incidents for up to `limit` workers that are offline, and closes those of workers that are back or no
    longer needed by an enabled trigger. Tells also of silences that ended before a scheduler noticed. Returns how many
    silences it looked at, and how many incidents it opened and closed.
    """
    params = {**_params(Kind.WORKER_OFFLINE, now), "limit": limit}
    looked_at = tell_missed_silences(limit=limit, now=now)
    with transaction.atomic():
        offline = fetch_all(_OFFLINE, params)
        over = fetch_all(_OVER, params)
        return looked_at + change_incidents(
            Kind.WORKER_OFFLINE,
            SubjectType.WORKER,
            begun=[_finding(row) for row in offline],
            recovered=[row["id"] for row in over if row["is_back"]],
            withdrawn=[row["id"] for row in over if not row["is_back"]],
            now=now,
        )


def find_offline_pools(*, limit: int = 200, now: datetime | None = None) -> int:
    """Opens incidents for up to `limit` pools of which no worker has called for ten minutes, or which have no workers,
    and closes those of pools that have a worker again or are no longer needed. Returns how many incidents it opened and
    closed.
    """
    params = {**_params(Kind.POOL_OFFLINE, now), "limit": limit}
    with transaction.atomic():
        offline = fetch_all(_POOLS_OFFLINE, params)
        over = fetch_all(_POOLS_OVER, params)
        return change_incidents(
            Kind.POOL_OFFLINE,
            SubjectType.POOL,
            begun=[
                Finding(row["environment_id"], row["id"], row["name"], _pool_words(row))
                for row in offline
            ],
            recovered=[row["id"] for row in over if row["is_back"]],
            withdrawn=[row["id"] for row in over if not row["is_back"]],
            now=now,
        )


def _params(kind: Kind, now: datetime | None) -> Row:
    return {
        "silent_for": SILENT_FOR,
        "kind": kind.value,
        "now": now,
        "gap": gap_seconds(),
        "grace": SILENT_FOR.total_seconds(),
    }


def _pool_words(row: Row) -> str:
    if not row["has_workers"]:
        return "The pool has no workers."
    return f"No worker of the pool has called since {iso_time(row['last_seen_at'])}."


def _finding(row: Row) -> Finding:
    seen = row["last_seen_at"]
    message = (
        "The worker has never called."
        if seen is None
        else f"The worker has not called since {iso_time(seen)}."
    )
    return Finding(row["environment_id"], row["id"], row["label"], message)
