"""Takes the locks that an admin's change of workers needs: the environment's, the admin's role, and the workers'."""

from collections.abc import Iterable
from uuid import UUID

from pipedai.events import Actor
from workers.models import Worker
from workspaces.locks import hold_environment, hold_role
from workspaces.roles import Role


def hold_workers(
    environment_id: UUID, worker_ids: Iterable[UUID], actor: Actor
) -> dict[UUID, Worker]:
    """Returns by id those of the workers that are registered in the environment, locked in the order of ids. First the
    environment and the actor's role are locked. Raises NotFound, and the errors of `hold_role`.
    """
    hold_environment(environment_id)
    hold_role(actor, environment_id, Role.ADMIN)
    rows = Worker.objects.select_for_update(no_key=True).filter(
        environment_id=environment_id, id__in=list(worker_ids), deleted_at__isnull=True
    )
    return {worker.id: worker for worker in rows.order_by("id")}
