"""Defines the base of the hosts' viewsets, which finds the environment and the worker that a key may act on."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request

from pipedai.api.errors import NotFound, or_not_found
from pipedai.api.principal import HostPrincipal, KeyPrincipal, principal_of
from workers.models import Worker
from workspaces.access import Access, ApiKeyAuthentication, HostKeyAuthentication, TenantViewSet
from workspaces.models import Environment
from workspaces.roles import HOST_ROLE, Role


class HostViewSet(TenantViewSet):
    """Lets a `hos_` key, or a `pwk_` key with the role admin, act in the key's one environment."""

    authentication_classes = (HostKeyAuthentication, ApiKeyAuthentication)

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Checks that the key's environment is in the URL's workspace, and that the key may change its worker."""
        principal = principal_of(request)
        assert isinstance(principal, HostPrincipal | KeyPrincipal)
        role = HOST_ROLE if isinstance(principal, HostPrincipal) else Role(principal.role)
        self.access = Access(principal.environment_id, role)
        if "workspace_id" in kwargs:
            own = Environment.objects.filter(
                id=principal.environment_id, workspace_id=kwargs["workspace_id"]
            )
            if not own.exists():
                raise NotFound
        if "worker_id" in kwargs:
            self.worker = self._find_worker(principal, kwargs["worker_id"])

    def _find_worker(self, principal: HostPrincipal | KeyPrincipal, worker_id: UUID) -> Worker:
        """A `hos_` key finds only workers that its host enrolled or minted a token for. Raises NotFound."""
        rows = Worker.objects.only("id", "environment_id").filter(
            id=worker_id, environment_id=principal.environment_id, deleted_at__isnull=True
        )
        if isinstance(principal, HostPrincipal):
            rows = rows.filter(host_key_id=principal.id)
        return or_not_found(rows.first())
