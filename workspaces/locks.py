"""Locks an environment's row. A transaction that needs several locks takes this one first (docs/architecture.md)."""

from uuid import UUID

from pipedai.api.errors import NotFound
from pipedai.sql import fetch_one


def hold_environment(environment_id: UUID) -> None:
    """Keeps the environment from being deleted until the transaction ends. Raises NotFound if it has been deleted.

    A foreign key alone would not be enough: a deleted environment keeps its row and only gets a time in `deleted_at`.
    """
    _lock(environment_id, "FOR KEY SHARE")


def lock_environment(environment_id: UUID) -> None:
    """Keeps the environment from being deleted until the transaction ends, and makes other callers of this function
    wait.

    Transactions call it before they count, add or remove rows whose number is limited, so that only one does so at a
    time. Transactions that only insert rows that refer to the environment don't wait. Raises NotFound if the
    environment has been deleted.
    """
    _lock(environment_id, "FOR NO KEY UPDATE")


def close_environment(environment_id: UUID) -> None:
    """Locks the environment for its deletion: waits for all transactions that hold it, and makes others wait. Raises
    NotFound if it has been deleted.
    """
    _lock(environment_id, "FOR UPDATE")


def _lock(environment_id: UUID, strength: str) -> None:
    statement = "SELECT id FROM environment WHERE id = %(id)s AND deleted_at IS NULL "
    if fetch_one(statement + strength, {"id": environment_id}) is None:
        raise NotFound
