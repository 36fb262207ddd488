"""Locks pools of workers by their ids, also for the apps that must not import `workers`, the app of the pools."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from pipedai.api.errors import Invalid
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


def checked_pools(environment_id: UUID, pool_ids: Sequence[UUID] | None) -> list[UUID] | None:
    """Returns the ids of the pools that a worker is to join, or None if there are none, and keeps the pools as
    `hold_pools` does. Raises Invalid if the environment lacks one of them.
    """
    if not pool_ids:
        return None
    if hold_pools(environment_id, pool_ids) != sorted(pool_ids):
        raise Invalid({"poolIds": ["One of the ids is no pool of this environment."]})
    return list(pool_ids)


def told_pools(pool_ids: Sequence[UUID] | None) -> dict[str, list[str]]:
    """Returns what an audit row says about the pools that a worker joins or is to join: nothing if there are none."""
    return {"poolIds": [str(pool_id) for pool_id in pool_ids]} if pool_ids else {}
