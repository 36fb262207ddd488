"""Takes the locks that come before the lock on a trigger: the environment's, the admin's role, and the workers'."""

from uuid import UUID

from pipedai.api.errors import or_not_found
from pipedai.events import Actor
from pipedai.sql import fetch_all
from triggers.models import Trigger
from workspaces.locks import hold_environment, hold_role, lock_environment
from workspaces.roles import Role

# Locks the workers of an environment in the same way as a claim locks its worker.
_LOCK_WORKERS = """
SELECT id FROM worker WHERE environment_id = %(environment_id)s AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE
"""


def hold_trigger_environment(
    trigger_id: UUID, actor: Actor, environment_id: UUID | None = None, *, alone: bool = False
) -> UUID:
    """Locks the trigger's environment and the actor's role, and returns the environment's id, which it reads unless the
    caller gives it. With `alone`, other transactions that change what the environment holds wait, such as workers that
    register. Raises NotFound, and the errors of `hold_role`.
    """
    environment = Trigger.objects.filter(id=trigger_id).values_list("environment_id", flat=True)
    environment_id = environment_id or or_not_found(environment.first())
    lock = lock_environment if alone else hold_environment
    lock(environment_id)
    hold_role(actor, environment_id, Role.ADMIN)
    return environment_id


def lock_workers(environment_id: UUID) -> list[UUID]:
    """Locks the workers of a locked environment: it waits for claims under way, and later claims wait for it."""
    rows = fetch_all(_LOCK_WORKERS, {"environment_id": environment_id})
    return [row["id"] for row in rows]
