"""The locks that an admin's change of a trigger needs before that on the trigger: the environment and the role."""

from uuid import UUID

from pipedai.api.errors import NotFound
from pipedai.events import Actor
from triggers.models import Trigger
from workspaces.locks import hold_environment, hold_role, lock_environment
from workspaces.roles import Role


def hold_trigger_environment(trigger_id: UUID, actor: Actor, *, alone: bool = False) -> UUID:
    """Locks the trigger's environment and the actor's role, and returns the environment's id. With `alone`, others who
    change what the environment holds wait too, such as workers that register. Raises NotFound, and the errors of
    `hold_role`.
    """
    environment = Trigger.objects.filter(id=trigger_id).values_list("environment_id", flat=True)
    environment_id = environment.first()
    if environment_id is None:
        raise NotFound
    lock = lock_environment if alone else hold_environment
    lock(environment_id)
    hold_role(actor, environment_id, Role.ADMIN)
    return environment_id
