"""Makes many environments, in one or several workspaces, for tests of how tenants take turns."""

from dataclasses import replace

from testing.world.cast import Cast
from workspaces.models import Environment, Workspace


def add_environments(cast: Cast, count: int, *, workspaces: int = 1) -> list[Cast]:
    """Makes `count` more environments, spread equally over `workspaces` workspaces of the cast's owner.

    Returns the cast once for each. The environments have no members, keys or workers, so give their triggers
    `worker_id=None`.
    """
    made = Workspace.objects.bulk_create(
        Workspace(name=f"workspace {n}", created_by=cast.owner) for n in range(workspaces)
    )
    environments = Environment.objects.bulk_create(
        Environment(name=f"environment {n}", workspace=made[n % workspaces]) for n in range(count)
    )
    return [
        replace(cast, workspace=environment.workspace, environment=environment)
        for environment in environments
    ]
