"""Locks an environment's row, which comes first in the order of locks (docs/architecture.md)."""

from uuid import UUID

from pipedai.api.errors import NotFound
from pipedai.sql import fetch_one


def hold_environment(environment_id: UUID) -> None:
    """Keeps the environment from being deleted until the transaction ends. Raises NotFound if it has been deleted.

    A foreign key alone would not do, since it does not look at `deleted_at`.
    """
    _lock(environment_id, "FOR KEY SHARE")


def lock_environment(environment_id: UUID) -> None:
    """Does the same as `hold_environment`, for one transaction at a time: those that count, add or remove rows of
    which there is a limit take turns. Transactions that only insert rows that refer to the environment don't wait."""
    _lock(environment_id, "FOR NO KEY UPDATE")


def close_environment(environment_id: UUID) -> None:
    """Locks the environment for its deletion: waits for all who hold it, and blocks others. Raises NotFound."""
    _lock(environment_id, "FOR UPDATE")


def _lock(environment_id: UUID, strength: str) -> None:
    statement = "SELECT id FROM environment WHERE id = %(id)s AND deleted_at IS NULL "
    if fetch_one(statement + strength, {"id": environment_id}) is None:
        raise NotFound
