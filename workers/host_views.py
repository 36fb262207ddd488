"""The endpoints `/workspaces/:wsId/workers…`, by which a host or an admin's script manages workers."""

from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import NotFound
from pipedai.api.pagination import MAX_LIMIT, KeysetPaginator
from pipedai.api.permissions import IsPublic
from pipedai.api.principal import HostPrincipal, KeyPrincipal, actor_of, principal_of
from pipedai.api.serializers import Body, read_body
from pipedai.api.views import ApiViewSet
from workers import queries, services
from workers.filters import WorkerFilters
from workers.models import Worker
from workers.serializers import RegistrationTokenBody, WorkerSerializer
from workspaces.access import Access, TenantViewSet
from workspaces.api_keys import mint_registration_token
from workspaces.authentication import ApiKeyAuthentication, HostKeyAuthentication
from workspaces.models import Environment
from workspaces.permissions import IsAdmin
from workspaces.roles import HOST_ROLE, Role


class HostPaginator(KeysetPaginator):
    """Makes pages as large as allowed by default: the published host client reads one page and names no limit."""

    default_limit = MAX_LIMIT


class HostViewSet(TenantViewSet):
    """Lets a `hos_` key, or a `pwk_` key with the role admin, act in the key's one environment."""

    authentication_classes = (HostKeyAuthentication, ApiKeyAuthentication)

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Checks that the key's environment is in the URL's workspace, and that the key may change the URL's worker."""
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
        """Returns the worker. A host finds only those that it enrolled or minted the token for. Raises NotFound."""
        rows = Worker.objects.only("id", "environment_id").filter(
            id=worker_id, environment_id=principal.environment_id, deleted_at__isnull=True
        )
        if isinstance(principal, HostPrincipal):
            rows = rows.filter(host_key_id=principal.id)
        worker = rows.first()
        if worker is None:
            raise NotFound
        return worker


class WorkspaceWorkerViewSet(HostViewSet):
    permissions: ClassVar = {
        "list": IsAdmin,
        "disable": IsAdmin,
        "enable": IsAdmin,
        "destroy": IsAdmin,
        "mint_token": IsAdmin,
    }
    filter_names = WorkerFilters.names()

    def list(self, request: Request, workspace_id: UUID) -> Response:
        """GET /workspaces/:wsId/workers"""
        rows = queries.workers().filter(environment_id=self.access.environment_id)
        filters = WorkerFilters.read(rows, request)
        paginator = HostPaginator()
        page = paginator.paginate_queryset(filters.qs, request, self)
        return paginator.get_paginated_response(WorkerSerializer(page, many=True).data)

    def disable(self, request: Request, workspace_id: UUID, worker_id: UUID) -> Response:
        """POST /workspaces/:wsId/workers/:id/disable"""
        return self._set_disabled(request, disabled=True)

    def enable(self, request: Request, workspace_id: UUID, worker_id: UUID) -> Response:
        """POST /workspaces/:wsId/workers/:id/enable"""
        return self._set_disabled(request, disabled=False)

    def destroy(self, request: Request, workspace_id: UUID, worker_id: UUID) -> Response:
        """DELETE /workspaces/:wsId/workers/:id"""
        services.deregister_worker(worker=self.worker, reassign_to=None, actor=actor_of(request))
        return Response(status=204)

    def mint_token(self, request: Request, workspace_id: UUID) -> Response:
        """POST /workspaces/:wsId/workers/registration-token: the only answer that holds the `wrk_` token."""
        minted = mint_registration_token(
            **read_body(RegistrationTokenBody, request),
            environment_id=self.access.environment_id,
            actor=actor_of(request),
        )
        return Response(
            {
                "id": minted.key.id,
                "token": minted.token,
                "lastFour": minted.key.last_four,
                "expiresAt": minted.key.expires_at,
            },
            status=201,
        )

    def _set_disabled(self, request: Request, *, disabled: bool) -> Response:
        read_body(Body, request)
        services.update_worker(
            worker=self.worker, values={"disabled": disabled}, actor=actor_of(request)
        )
        return Response(WorkerSerializer(queries.workers().get(id=self.worker.id)).data)


class ReleaseViewSet(ApiViewSet):
    """The newest versions of the programs on a host that this service knows."""

    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    def retrieve(self, request: Request) -> Response:
        """GET /releases/latest"""
        latest = {
            "pipedaiWorker": settings.LATEST_WORKER_VERSION,
            "pipedaiOrchestrator": settings.LATEST_ORCHESTRATOR_VERSION,
        }
        return Response(
            {name: {"latest": version, "source": "settings"} for name, version in latest.items()}
        )
