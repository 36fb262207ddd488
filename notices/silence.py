"""Finds out in the scheduler which workers are offline although triggers need them (SPEC §14)."""

from datetime import datetime

from django.db import transaction

from notices.incidents import Finding, change_incidents
from notices.missed_silence import tell_missed_silences
from notices.states import Kind, SubjectType
from pipedai.api.renderers import iso_time
from pipedai.sql import NOW, Row, fetch_all
from triggers.runs.reachability import LEASES_COUNT, gap_seconds
from workers.silence import IS_NEEDED, LAST_SEEN, SILENT_FOR

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
    AND {IS_NEEDED}
LIMIT %(limit)s
"""  # noqa: S608

# Finds the workers with an open incident that are back, disabled or deleted, or that no enabled trigger needs any more.
_OVER = f"""
SELECT w.id, w.disabled_at IS NULL AND w.deleted_at IS NULL AND {LAST_SEEN} >= {NOW} - %(silent_for)s AS is_back
FROM incident i JOIN worker w ON w.id = i.subject_id
WHERE i.kind = %(kind)s AND i.closed_at IS NULL
    AND (w.deleted_at IS NOT NULL OR w.disabled_at IS NOT NULL OR {LAST_SEEN} >= {NOW} - %(silent_for)s
        OR NOT {IS_NEEDED})
LIMIT %(limit)s
"""  # noqa: S608


def find_offline_workers(*, limit: int = 200, now: datetime | None = None) -> int:
    """Opens incidents for up to `limit` workers that are offline, and closes those of workers that are back or no
    longer needed by an enabled trigger. Tells also of silences that ended before a scheduler noticed. Returns how many
    silences it looked at, and how many incidents it opened and closed.
    """
    params = {
        "silent_for": SILENT_FOR,
        "kind": Kind.WORKER_OFFLINE.value,
        "limit": limit,
        "now": now,
        "gap": gap_seconds(),
        "grace": SILENT_FOR.total_seconds(),
    }
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


def _finding(row: Row) -> Finding:
    seen = row["last_seen_at"]
    message = (
        "The worker has never called."
        if seen is None
        else f"The worker has not called since {iso_time(seen)}."
    )
    return Finding(row["environment_id"], row["id"], row["label"], message)
