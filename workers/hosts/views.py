"""The endpoints `/workspaces/:wsId/workers…`, by which a host or an admin's script manages workers."""

from collections.abc import Iterable
from typing import ClassVar
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.api.pagination import MAX_LIMIT, KeysetPaginator
from pipedai.api.principal import HostPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, read_body
from triggers.filters import check_tenant_ids
from workers import queries, services
from workers.filters import WorkerFilters
from workers.hosts.access import HostViewSet
from workers.pools.membership import pools_of_host
from workers.serializers import RegistrationTokenBody, WorkerSerializer
from workspaces.api_keys import mint_registration_token
from workspaces.permissions import IsAdmin


class HostPaginator(KeysetPaginator):
    default_limit = MAX_LIMIT


class WorkspaceWorkerViewSet(HostViewSet):
    """The workers of the key's environment, which must be in the URL's workspace."""

    tag = "Hosts"
    permissions: ClassVar = {
        "list": IsAdmin,
        "disable": IsAdmin,
        "enable": IsAdmin,
        "destroy": IsAdmin,
        "mint_token": IsAdmin,
    }
    filter_names = WorkerFilters.names()
    pagination_class = HostPaginator

    @Operation(
        "GET /workspaces/{workspaceId}/workers",
        id="listHostWorkers",
        summary="List the workers of the key's environment",
        items=WorkerSerializer,
        filters=WorkerFilters,
    )
    def list(self, request: Request, workspace_id: UUID) -> Response:
        rows = queries.workers().filter(environment_id=self.access.environment_id)
        filters = WorkerFilters.read(rows, request)
        check_tenant_ids(self.access.environment_id, filters)
        return self.page(request, filters.qs, WorkerSerializer)

    @Operation(
        "POST /workspaces/{workspaceId}/workers/{workerId}/disable",
        id="disableHostWorker",
        summary="Disable a worker",
        body=Body,
        answers={200: WorkerSerializer},
    )
    def disable(self, request: Request, workspace_id: UUID, worker_id: UUID) -> Response:
        return self._set_disabled(request, disabled=True)

    @Operation(
        "POST /workspaces/{workspaceId}/workers/{workerId}/enable",
        id="enableHostWorker",
        summary="Enable a worker",
        body=Body,
        answers={200: WorkerSerializer},
    )
    def enable(self, request: Request, workspace_id: UUID, worker_id: UUID) -> Response:
        return self._set_disabled(request, disabled=False)

    @Operation(
        "DELETE /workspaces/{workspaceId}/workers/{workerId}",
        id="deregisterHostWorker",
        summary="Deregister a worker of a host",
        answers={204: None},
    )
    def destroy(self, request: Request, workspace_id: UUID, worker_id: UUID) -> Response:
        services.deregister_worker(worker=self.worker, reassign_to=None, actor=actor_of(request))
        return Response(status=204)

    @Operation(
        "POST /workspaces/{workspaceId}/workers/registration-token",
        id="mintRegistrationToken",
        summary="Mint a registration token",
        body=RegistrationTokenBody,
        example={"label": "build-2"},
        answers={
            201: answer(
                "RegistrationToken",
                "A registration token, which is shown this once.",
                id=serializers.UUIDField(),
                token=serializers.CharField(),
                lastFour=serializers.CharField(),
                expiresAt=serializers.DateTimeField(),
            )
        },
    )
    def mint_token(self, request: Request, workspace_id: UUID) -> Response:
        """Mints a `wrk_` token, which only this answer holds."""
        values = read_body(RegistrationTokenBody, request)
        self._check_pools(request, values.get("pool_ids", ()))
        minted = mint_registration_token(
            **values,
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

    def _check_pools(self, request: Request, pool_ids: Iterable[UUID]) -> None:
        """Raises Invalid if a host names a pool without a worker of its own. A `pwk_` key may name any pool."""
        principal = principal_of(request)
        if isinstance(principal, HostPrincipal) and not pools_of_host(principal.id).issuperset(
            pool_ids
        ):
            raise Invalid({"poolIds": ["One of the ids is no pool of a worker of this host."]})

    def _set_disabled(self, request: Request, *, disabled: bool) -> Response:
        read_body(Body, request)
        services.update_worker(
            worker=self.worker, values={"disabled": disabled}, actor=actor_of(request)
        )
        return Response(WorkerSerializer(queries.workers().get(id=self.worker.id)).data)
