"""Locks an environment's row, which comes first in the order of locks (docs/architecture.md)."""

from uuid import UUID

from pipedai.api.errors import NotFound
from pipedai.sql import fetch_one


def hold_environment(environment_id: UUID) -> None:
    """Until this transaction ends, the environment can't be deleted. Raises NotFound if it has been.

    The foreign key alone does not see `deleted_at`.
    """
    _lock(environment_id, "FOR KEY SHARE")


def lock_environment(environment_id: UUID) -> None:
    """As `hold_environment`, and alone: nobody else adds, counts or removes what the environment
    may hold only so many of, or must hold one of. Rows that only refer to it are not held up."""
    _lock(environment_id, "FOR NO KEY UPDATE")


def close_environment(environment_id: UUID) -> None:
    """For its deletion: waits for whoever holds it, and keeps everyone out. Raises NotFound if it has been deleted."""
    _lock(environment_id, "FOR UPDATE")


def _lock(environment_id: UUID, strength: str) -> None:
    statement = "SELECT id FROM environment WHERE id = %(id)s AND deleted_at IS NULL "
    if fetch_one(statement + strength, {"id": environment_id}) is None:
        raise NotFound
