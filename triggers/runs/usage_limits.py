"""Gives no runs to workers whose account has reached its usage limit, until the limit ends (SPEC §16)."""

from datetime import datetime
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.events import Actor, Event, emit
from pipedai.sql import NOW, fetch_all
from pipedai.wakeups import wake_workers
from triggers.runs.outcome import UsageLimit
from triggers.runs.pools import open_to_pools

# The longest time for which a report limits workers, since a report with a wrong time must not stop them for good.
LONGEST = "8 days"
# Workers of one account start again at random times within this many seconds, not all in the same moment.
JITTER_SECONDS = 60

# Locks a worker, and the workers of its environment that have the same account.
_LOCK_ACCOUNT = """
SELECT o.id FROM worker w JOIN worker o ON o.id = w.id
    OR (o.environment_id = w.environment_id AND o.account_id = w.account_id AND o.deleted_at IS NULL)
WHERE w.id = %(worker_id)s
ORDER BY o.id FOR NO KEY UPDATE OF o
"""

_LIMIT = f"""
UPDATE worker SET limited_until = greatest(
    limited_until,
    least(greatest(%(resets_at)s, {NOW}), {NOW} + interval '{LONGEST}')
        + random() * interval '{JITTER_SECONDS} seconds')
WHERE id = ANY(%(worker_ids)s)
RETURNING id, environment_id, limited_until
"""


def lock_account(worker_id: UUID) -> list[UUID]:
    """Locks the worker and others of its account, and returns their ids. Call it before triggers or runs are locked
    (docs/architecture.md).
    """
    return [row["id"] for row in fetch_all(_LOCK_ACCOUNT, {"worker_id": worker_id})]


def limit_workers(
    worker_ids: list[UUID], limit: UsageLimit, *, actor: Actor, now: datetime | None = None
) -> None:
    """Gives these workers, which `lock_account` has locked, no runs until the limit ends. Others of their pools may
    take their queued runs at once, except those that continue a session.
    """
    params = {"worker_ids": worker_ids, "resets_at": limit.resets_at, "now": now}
    limited = fetch_all(_LIMIT, params)
    until = max(row["limited_until"] for row in limited)
    open_to_pools(worker_ids, until=until, now=now)
    wake_workers(worker_ids)
    metadata = {
        "limitedUntil": iso_time(until),
        "kind": limit.kind,
        "workers": [str(worker_id) for worker_id in worker_ids],
    }
    environment_id = limited[0]["environment_id"]
    emit(Event("worker.limited", actor, environment_id, "worker", actor.id, metadata))
