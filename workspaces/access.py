"""Finds a tenant and the caller's role in it: nothing outside it is ever visible (SPEC §4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from uuid import UUID

from django.conf import settings
from django.db.models import F, QuerySet, Value
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.authentication import CookieJWTAuthentication
from pipedai.api.errors import NotFound
from pipedai.api.principal import KeyPrincipal, Principal, UserPrincipal, principal_of
from pipedai.api.throttling import Rate, check_rate
from pipedai.api.views import ApiViewSet
from workspaces.authentication import ApiKeyAuthentication
from workspaces.models import Membership
from workspaces.roles import Role


@dataclass(frozen=True, slots=True)
class Access:
    """An environment that the caller sees, and as what."""

    environment_id: UUID
    role: Role


def environment_access(principal: Principal, environment_id: UUID) -> Access:
    """The caller's access to an environment. Raises NotFound for one that they can't see. At most one query."""
    if isinstance(principal, KeyPrincipal) and principal.environment_id == environment_id:
        return Access(environment_id, Role(principal.role))
    if isinstance(principal, UserPrincipal):
        role = (
            Membership.objects.filter(
                environment_id=environment_id,
                user_id=principal.id,
                environment__deleted_at__isnull=True,
            )
            .values_list("role", flat=True)
            .first()
        )
        if role is not None:
            return Access(environment_id, Role(role))
    raise NotFound


def visible(queryset: QuerySet[Any], principal: Principal) -> QuerySet[Any]:
    """The rows of a tenant table that the caller can see, each with the caller's `caller_role`."""
    if isinstance(principal, KeyPrincipal):
        own = queryset.filter(environment_id=principal.environment_id)
        return cast("QuerySet[Any]", own.annotate(caller_role=Value(principal.role)))
    if isinstance(principal, UserPrincipal):
        own = queryset.filter(
            environment__memberships__user_id=principal.id, environment__deleted_at__isnull=True
        )
        return cast("QuerySet[Any]", own.annotate(caller_role=F("environment__memberships__role")))
    return queryset.none()


class TenantViewSet(ApiViewSet):
    """Actions inside one environment. `self.access` is set before the role is checked.

    The default finds the environment that the URL names; a viewset whose URL names another row sets
    `self.access` from that row with `_find_visible`.
    """

    authentication_classes: Sequence[type[BaseAuthentication]] = (
        CookieJWTAuthentication,
        ApiKeyAuthentication,
    )
    access: Access
    # How often an action may be done in one environment; checked after the role, so that nobody uses up
    # what is another's.
    environment_rates: ClassVar[Mapping[str, Rate]] = {}

    def check_permissions(self, request: Request) -> None:
        """The role, and then the environment's rate. Raises Forbidden, TooManyRequests."""
        super().check_permissions(request)
        rate = self.environment_rates.get(self.action or "")
        if rate is not None and settings.THROTTLES_ENABLED:
            check_rate(rate, str(self.access.environment_id))

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Sets `self.access` from the URL's environment. Raises NotFound."""
        self.access = environment_access(principal_of(request), kwargs["environment_id"])

    def _find_visible(self, request: Request, queryset: QuerySet[Any], row_id: UUID) -> Any:
        """The row with this id, if the caller sees it, and sets `self.access` from it. Raises NotFound. One query."""
        row = visible(queryset, principal_of(request)).filter(id=row_id).first()
        if row is None:
            raise NotFound
        self.access = Access(row.environment_id, Role(row.caller_role))
        return row
