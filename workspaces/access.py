"""Finds the environment of a request and the caller's role in it. Without a role it does not exist (SPEC §4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.authentication import CookieJWTAuthentication
from pipedai.api.errors import NotFound
from pipedai.api.principal import KeyPrincipal, Principal, UserPrincipal, principal_of
from pipedai.api.throttling import Rate, check_rate
from pipedai.api.views import ApiViewSet
from pipedai.sql import fetch_one
from workspaces.authentication import ApiKeyAuthentication
from workspaces.models import Environment, Membership, Workspace
from workspaces.roles import Role

_ENVIRONMENTS = "SELECT id, id AS environment_id FROM environment"
_MEMBER = """
JOIN membership m ON m.environment_id = r.environment_id AND m.user_id = %(user_id)s
JOIN environment e ON e.id = r.environment_id AND e.deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Access:
    environment_id: UUID
    role: Role


def find_visible(principal: Principal, rows: str, row_id: UUID) -> Access:
    """Returns the environment of a row, and the caller's role in it. `rows` is a SELECT of `id` and `environment_id`.
    It takes one query, in raw SQL because every request with an API key makes it. Raises NotFound.
    """
    # The queries are raw SQL for speed, so no migration renames columns in them. See docs/decisions/fast-paths.md.
    if isinstance(principal, KeyPrincipal):
        found = fetch_one(
            f"SELECT environment_id FROM ({rows}) r WHERE id = %(id)s AND environment_id = %(environment_id)s",
            {"id": row_id, "environment_id": principal.environment_id},
        )
        if found is not None:
            return Access(principal.environment_id, Role(principal.role))
    if isinstance(principal, UserPrincipal):
        found = fetch_one(
            f"SELECT r.environment_id, m.role FROM ({rows}) r {_MEMBER} WHERE r.id = %(id)s",
            {"id": row_id, "user_id": principal.id},
        )
        if found is not None:
            return Access(found["environment_id"], Role(found["role"]))
    raise NotFound


def visible_workspaces(user_id: UUID) -> QuerySet[Workspace]:
    """Returns the workspaces that the user created, and those with an environment of which the user is a member."""
    mine = Membership.objects.filter(
        user_id=user_id,
        environment__workspace_id=OuterRef("id"),
        environment__deleted_at__isnull=True,
    )
    return Workspace.objects.filter(Q(created_by_id=user_id) | Exists(mine))


def environments_with(role: Role, user_id: UUID) -> QuerySet[Environment]:
    """Returns the environments in which the user has this role or a higher one, with their workspaces, by name."""
    return (
        Environment.objects.filter(
            memberships__user_id=user_id,
            memberships__role__in=[each for each in Role if each.includes(role)],
            deleted_at__isnull=True,
        )
        .select_related("workspace")
        .order_by("workspace__name", "name", "id")
    )


def environments_of(user_id: UUID, workspace_id: UUID) -> QuerySet[Environment, Any]:
    """Each has the user's role as `caller_role`."""
    return Environment.objects.filter(
        workspace_id=workspace_id, deleted_at__isnull=True, memberships__user_id=user_id
    ).annotate(caller_role=F("memberships__role"))


class TenantViewSet(ApiViewSet):
    """The base of viewsets whose actions are inside one environment. It sets `self.access`, the environment and the
    caller's role in it, and then checks the role.

    A viewset whose URL names an environment needs nothing more. One with URLs that name another row, such as a trigger,
    says so by `row`.
    """

    authentication_classes: Sequence[type[BaseAuthentication]] = (
        CookieJWTAuthentication,
        ApiKeyAuthentication,
    )
    # The name by which the URL has the row's id, and a SELECT of `id` and `environment_id` from the row's table.
    row: ClassVar[tuple[str, str]] = ("environment_id", _ENVIRONMENTS)
    access: Access
    # For each action, how often it may be done in one environment. The calls are counted after the check of the role,
    # so that callers whose role is too low don't use up the number of calls that is left for others.
    environment_rates: ClassVar[Mapping[str, Rate]] = {}

    def check_permissions(self, request: Request) -> None:
        """Checks the role and the environment's rates. Raises Forbidden, TooManyRequests."""
        super().check_permissions(request)
        rate = self.environment_rates.get(self.action or "")
        if rate is not None and settings.THROTTLES_ENABLED:
            check_rate(rate, str(self.access.environment_id))

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Sets `self.access` to the environment of the row that the URL names and the caller's role in it. Raises
        NotFound if the caller has none.
        """
        name, rows = self.row if self.row[0] in kwargs else TenantViewSet.row
        principal, row_id = principal_of(request), kwargs[name]
        is_environment = rows == _ENVIRONMENTS
        if (
            is_environment
            and isinstance(principal, KeyPrincipal)
            and principal.environment_id == row_id
        ):
            self.access = Access(row_id, Role(principal.role))
        else:
            self.access = find_visible(principal, rows, row_id)
