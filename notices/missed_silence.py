"""Tells that a worker was offline and has called again before any scheduler looked, for example because none ran.

The worker's call wrote a row of `worker_silence`. Such a silence becomes one incident that is closed from the
beginning.
"""

from datetime import datetime
from itertools import groupby
from operator import itemgetter

from django.db import transaction

from notices.incidents import Finding, Past, tell_past
from notices.states import Kind, SubjectType
from pipedai.api.renderers import iso_time
from pipedai.sql import Row, fetch_all
from workers.silence import SILENT_FOR

# Deletes the rows, which makes sure that each is told once. It says of each whether people are to be told: not if an
# incident told them already, and not if the worker is disabled or deleted by now. An incident about a silence is opened
# ten minutes after the last call or later, and an incident about the silence that follows is opened ten minutes after
# the end or later.
_TAKE = """
WITH old AS (
    SELECT id FROM worker_silence ORDER BY worker_id, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
s AS (DELETE FROM worker_silence s USING old WHERE s.id = old.id RETURNING s.*)
SELECT s.worker_id, s.environment_id, w.label, s.last_seen_at, s.offline_at, s.ended_at,
    w.deleted_at IS NULL AND w.disabled_at IS NULL AND NOT EXISTS (
        SELECT FROM incident i
        WHERE i.subject_id = s.worker_id AND i.kind = %(kind)s AND i.environment_id = s.environment_id
            AND i.opened_at >= coalesce(s.last_seen_at, w.created_at) + %(silent_for)s
            AND i.opened_at < s.ended_at + %(silent_for)s) AS is_to_be_told
FROM s JOIN worker w ON w.id = s.worker_id
ORDER BY s.worker_id, s.id
"""


def tell_missed_silences(*, limit: int, now: datetime | None = None) -> int:
    """Takes up to `limit` silences that workers ended, and tells about those that no incident told. Returns how many it
    took. Several silences of one worker become one incident.
    """
    with transaction.atomic():
        params = {
            "kind": Kind.WORKER_OFFLINE.value,
            "silent_for": SILENT_FOR,
            "limit": limit,
        }
        rows = fetch_all(_TAKE, params)
        told = groupby((row for row in rows if row["is_to_be_told"]), key=itemgetter("worker_id"))
        past = [_past(list(silences)) for _, silences in told]
        tell_past(Kind.WORKER_OFFLINE, SubjectType.WORKER, past, now=now)
        return len(rows)


def _past(silences: list[Row]) -> Past:
    """Returns the silences of one worker, from the first one's beginning to the last one's end."""
    first, last = silences[0], silences[-1]
    seen = first["last_seen_at"]
    message = (
        (
            "The worker had never called"
            if seen is None
            else f"The worker did not call after {iso_time(seen)}"
        )
        + (f", and was silent {len(silences):,} times" if len(silences) > 1 else "")
        + f" until it called at {iso_time(last['ended_at'])}, before a scheduler noticed."
    )
    finding = Finding(first["environment_id"], first["worker_id"], first["label"], message)
    return Past(finding, first["offline_at"], last["ended_at"])
