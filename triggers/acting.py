"""Takes the locks that must come before the lock on a trigger when an admin changes it: the environment's and the
admin's role.
"""

from uuid import UUID

from pipedai.api.errors import NotFound
from pipedai.events import Actor
from triggers.models import Trigger
from workspaces.locks import hold_environment, hold_role, lock_environment
from workspaces.roles import Role


def hold_trigger_environment(trigger_id: UUID, actor: Actor, *, alone: bool = False) -> UUID:
    """Locks the trigger's environment, so that it is not deleted meanwhile, and the actor's role in it. Returns the
    environment's id.

    With `alone`, others who change what the environment holds wait as well, such as workers that register.
    Raises NotFound if there is no such trigger, and whatever `hold_role` raises.
    """
    environment = Trigger.objects.filter(id=trigger_id).values_list("environment_id", flat=True)
    environment_id = environment.first()
    if environment_id is None:
        raise NotFound
    lock = lock_environment if alone else hold_environment
    lock(environment_id)
    hold_role(actor, environment_id, Role.ADMIN)
    return environment_id
