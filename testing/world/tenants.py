"""Makes environments in bulk, in one workspace or each in its own; for what takes turns between tenants."""

from dataclasses import replace

from testing.world.cast import Cast
from workspaces.models import Environment, Workspace


def add_environments(cast: Cast, count: int, *, workspaces: int = 1) -> list[Cast]:
    """The cast in so many more environments, in equal parts in so many workspaces of its owner's.

    They have no members, keys or workers: give their triggers `worker_id=None`.
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
