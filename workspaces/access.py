"""Finds out who calls and what they may do in an environment: API keys, the caller's role, the base of all tenants'
viewsets.

An environment in which the caller has no role looks to them as if it did not exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.sessions import CookieJWTAuthentication
from pipedai.api.authentication import BearerAuthentication, bad_token
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import NotFound
from pipedai.api.exceptions import unless_read_only
from pipedai.api.principal import (
    HostPrincipal,
    KeyPrincipal,
    Principal,
    UserPrincipal,
    principal_of,
)
from pipedai.api.throttling import Rate, check_rate
from pipedai.api.views import ApiViewSet
from pipedai.server.memory_budget import note_caller
from pipedai.sql import Row, execute, fetch_one
from workspaces.models import ApiKey, Environment, Membership, Workspace
from workspaces.roles import Role, check_includes

# Finds a key by its token's digest. `used_lately` says whether `last_used_at` was written in the last 10 s; then it is
# not written again, which saves a write for each call.
_FIND = """
SELECT k.id, k.environment_id, e.workspace_id, k.role, k.is_login,
    coalesce(k.expires_at <= statement_timestamp(), false) AS is_over,
    coalesce(k.last_used_at > statement_timestamp() - interval '10 seconds', false) AS used_lately
FROM api_key k JOIN environment e ON e.id = k.environment_id
WHERE k.token_digest = %(digest)s AND k.kind = %(kind)s AND k.revoked_at IS NULL AND e.deleted_at IS NULL
"""
# Writes when the key was last used. If another transaction has locked the key's row, this changes nothing and does not
# wait: the next call will write it.
_NOTE_USE = """
UPDATE api_key SET last_used_at = statement_timestamp()
WHERE id = (SELECT id FROM api_key WHERE id = %(id)s FOR NO KEY UPDATE SKIP LOCKED)
"""


class ApiKeyAuthentication(BearerAuthentication):
    prefix = ApiKey.Kind.PWK.value

    def find(self, digest: bytes) -> KeyPrincipal | None:
        """Raises Unauthenticated if the key has expired. The query is raw SQL because each call of a script runs it."""
        row = _find(digest, self.prefix)
        if row is None:
            return None
        columns = ("id", "environment_id", "workspace_id", "role", "is_login")
        return KeyPrincipal(*(row[column] for column in columns))


class HostKeyAuthentication(BearerAuthentication):
    prefix = ApiKey.Kind.HOS.value

    def find(self, digest: bytes) -> HostPrincipal | None:
        """Finds the host of a `hos_` key in one query. Raises Unauthenticated if the key has expired."""
        row = _find(digest, self.prefix)
        if row is None:
            return None
        return HostPrincipal(row["id"], row["environment_id"], row["workspace_id"])


def _find(digest: bytes, kind: str) -> Row | None:
    row = fetch_one(_FIND, {"digest": digest, "kind": kind})
    if row is None:
        return None
    if row["is_over"]:
        raise bad_token(ErrorCode.TOKEN_EXPIRED)
    if not row["used_lately"]:
        with unless_read_only():
            execute(_NOTE_USE, {"id": row["id"]})
    return row


_ENVIRONMENTS = "SELECT id, id AS environment_id FROM environment"
_MEMBER = """
JOIN membership m ON m.environment_id = r.environment_id AND m.user_id = %(user_id)s
JOIN environment e ON e.id = r.environment_id AND e.deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Access:
    environment_id: UUID
    role: Role
    workspace_id: UUID


def find_visible(principal: Principal, rows: str, row_id: UUID) -> Access:
    """Returns the environment of a row, and the caller's role in it. `rows` is a SELECT of `id` and `environment_id`.
    It runs one query, in raw SQL for speed, because every request with an API key needs it. Raises NotFound.
    """
    # The queries are raw SQL for speed, so no migration renames columns in them. See docs/decisions/fast-paths.md.
    if isinstance(principal, KeyPrincipal):
        found = fetch_one(
            f"SELECT environment_id FROM ({rows}) r WHERE id = %(id)s AND environment_id = %(environment_id)s",
            {"id": row_id, "environment_id": principal.environment_id},
        )
        if found is not None:
            return Access(principal.environment_id, Role(principal.role), principal.workspace_id)
    if isinstance(principal, UserPrincipal):
        found = fetch_one(
            f"SELECT r.environment_id, m.role, e.workspace_id FROM ({rows}) r {_MEMBER} WHERE r.id = %(id)s",
            {"id": row_id, "user_id": principal.id},
        )
        if found is not None:
            return Access(found["environment_id"], Role(found["role"]), found["workspace_id"])
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
    """Returns the environments of a workspace that the user is a member of, each with their role as `caller_role`."""
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
    # How the URL names the row: the name of its id, and a SELECT of `id` and `environment_id` from its table.
    row: ClassVar[tuple[str, str]] = ("environment_id", _ENVIRONMENTS)
    access: Access
    # For each action, how often it may be done in one environment. The calls are counted after the check of the role,
    # so that callers whose role is too low don't use up the calls of those who may make them.
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
            self.access = Access(row_id, Role(principal.role), principal.workspace_id)
        else:
            self.access = find_visible(principal, rows, row_id)
        note_caller(request, self.access.workspace_id)


class HasRole(BasePermission):
    role: ClassVar[Role]

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Returns True if the caller's role is high enough. Otherwise raises Forbidden with the role that is needed."""
        assert isinstance(view, TenantViewSet)
        check_includes(view.access.role, self.role)
        return True


class IsViewer(HasRole):
    role = Role.VIEWER


class IsOperator(HasRole):
    role = Role.OPERATOR


class IsAdmin(HasRole):
    role = Role.ADMIN


class IsOwner(HasRole):
    role = Role.OWNER
