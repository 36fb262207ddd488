"""Locks pools of workers by their ids, also for the apps that must not import `workers`, the app of the pools."""

from collections.abc import Iterable
from uuid import UUID

from pipedai.sql import fetch_all

_HOLD = """
SELECT id FROM pool
WHERE environment_id = %(environment_id)s AND id = ANY(%(pool_ids)s) AND deleted_at IS NULL
ORDER BY id FOR KEY SHARE
"""


def hold_pools(environment_id: UUID, pool_ids: Iterable[UUID]) -> list[UUID]:
    """Returns those of the ids that are pools of the environment, sorted, and keeps these pools from being deleted
    until the transaction ends.

    The caller has locked the environment, and every worker that it locks (docs/architecture.md).
    """
    params = {"environment_id": environment_id, "pool_ids": list(pool_ids)}
    return [row["id"] for row in fetch_all(_HOLD, params)]
