"""Locks workers, for an admin's change and for a claim."""

from collections.abc import Iterable
from uuid import UUID

from pipedai.api.authentication import bad_token
from pipedai.api.principal import WorkerPrincipal
from pipedai.events import Actor
from pipedai.sql import fetch_one
from triggers.runs.conditions import Limits, limits_of
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


def locked_limits(worker: WorkerPrincipal, *, takes_approvals: bool) -> Limits:
    """Locks the worker's row. `takes_approvals` is what the call says of it. Raises Unauthenticated if the token was
    revoked since authentication.
    """
    row = fetch_one(
        "SELECT max_concurrency, disabled_at IS NOT NULL AS disabled, unapproved_since IS NULL AS approved,"
        " coalesce(limited_until > statement_timestamp(), false) AS limited FROM worker"
        " WHERE id = %(id)s AND token_digest = %(token_digest)s FOR NO KEY UPDATE",
        {"id": worker.id, "token_digest": worker.token_digest},
    )
    if row is None:
        raise bad_token()
    return limits_of(**row, takes_approvals=takes_approvals)
