"""Reads the workspaces and environments that a user may see, and no others (SPEC §4)."""

from typing import Any
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from workspaces.models import Environment, Membership, Workspace
from workspaces.roles import Role


def visible_workspaces(user_id: UUID) -> QuerySet[Workspace]:
    """Returns the workspaces that the user created, and those with an environment of which the user is a member."""
    mine = Membership.objects.filter(
        user_id=user_id,
        environment__workspace_id=OuterRef("id"),
        environment__deleted_at__isnull=True,
    )
    return Workspace.objects.filter(Q(created_by_id=user_id) | Exists(mine))


def administered_environments(user_id: UUID) -> QuerySet[Environment]:
    """Returns the environments in which the user is an admin or owner, with their workspaces, ordered by name."""
    return (
        Environment.objects.filter(
            memberships__user_id=user_id,
            memberships__role__in=(Role.ADMIN, Role.OWNER),
            deleted_at__isnull=True,
        )
        .select_related("workspace")
        .order_by("workspace__name", "name", "id")
    )


def environments_of(user_id: UUID, workspace_id: UUID) -> QuerySet[Environment, Any]:
    """Returns those environments of the workspace of which the user is a member, each with the user's role as
    `caller_role`.
    """
    return Environment.objects.filter(
        workspace_id=workspace_id, deleted_at__isnull=True, memberships__user_id=user_id
    ).annotate(caller_role=F("memberships__role"))
