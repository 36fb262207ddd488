"""Keeps a parent from being deleted while a child is made under it."""

from uuid import UUID

from pipedai.api.errors import NotFound
from pipedai.sql import fetch_one


def hold_environment(environment_id: UUID) -> None:
    """Until this transaction ends, the environment can't be deleted. Raises NotFound if it has been.

    The foreign key alone does not see `deleted_at`. A deletion takes the row FOR UPDATE, which
    waits for this lock. First in the one lock order: environment, worker, trigger, run, retry.
    """
    row = fetch_one(
        "SELECT id FROM environment WHERE id = %(id)s AND deleted_at IS NULL FOR KEY SHARE",
        {"id": environment_id},
    )
    if row is None:
        raise NotFound
