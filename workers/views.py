"""The endpoints of workers for people and their scripts: list, read, change, approve and deregister them."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import CookieJWTAuthentication
from pipedai.api.errors import Invalid
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation, query
from pipedai.api.serializers import read_body
from triggers.filters import check_tenant_ids
from workers import queries, services
from workers.filters import WorkerFilters
from workers.models import Worker
from workers.serializers import WorkerBody, WorkerSerializer
from workspaces.access import TenantViewSet
from workspaces.permissions import IsAdmin, IsViewer


class EnvironmentWorkerViewSet(TenantViewSet):
    """The workers of an environment."""

    tag = "Workers"
    permissions = {"list": IsViewer}
    filter_names = WorkerFilters.names()

    @Operation(
        "GET /environments/{environmentId}/workers",
        id="listWorkers",
        summary="List workers",
        items=WorkerSerializer,
        filters=WorkerFilters,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = queries.workers().filter(environment_id=environment_id)
        filters = WorkerFilters.read(rows, request)
        check_tenant_ids(environment_id, filters)
        return self.page(request, filters.qs, WorkerSerializer)


class OneWorkerViewSet(TenantViewSet):
    """The base of viewsets whose URL names one worker and whose callers are members of its environment."""

    row = ("worker_id", queries.LIVE_WORKERS)
    worker: Worker

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        super().find_tenant(request, **kwargs)
        self.worker = Worker(id=kwargs["worker_id"], environment_id=self.access.environment_id)


class WorkerViewSet(OneWorkerViewSet):
    tag = "Workers"
    permissions = {
        "retrieve": IsViewer,
        "update": IsAdmin,
        "destroy": IsAdmin,
        "revoke_token": IsAdmin,
    }

    @Operation(
        "GET /workers/{workerId}",
        id="getWorker",
        summary="Get a worker",
        answers={200: WorkerSerializer},
    )
    def retrieve(self, request: Request, worker_id: UUID) -> Response:
        return Response(WorkerSerializer(queries.workers().get(id=worker_id)).data)

    @Operation(
        "PATCH /workers/{workerId}",
        id="updateWorker",
        summary="Change a worker",
        body=WorkerBody,
        partial=True,
        example={"maxConcurrency": 2},
        answers={200: WorkerSerializer},
    )
    def update(self, request: Request, worker_id: UUID) -> Response:
        services.update_worker(
            worker=self.worker,
            values=read_body(WorkerBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(WorkerSerializer(queries.workers().get(id=worker_id)).data)

    @Operation(
        "DELETE /workers/{workerId}",
        id="deregisterWorker",
        summary="Deregister a worker",
        parameters=(
            query(
                "reassignTo",
                {"type": "string", "format": "uuid"},
                description="The worker that takes over its triggers and queued runs.",
            ),
        ),
        answers={204: None},
    )
    def destroy(self, request: Request, worker_id: UUID) -> Response:
        """`?reassignTo=` names the worker that takes over triggers and queued runs."""
        services.deregister_worker(
            worker=self.worker,
            reassign_to=_uuid_parameter(request, "reassignTo"),
            actor=actor_of(request),
        )
        return Response(status=204)

    @Operation(
        "POST /workers/{workerId}/revoke-token",
        id="revokeWorkerToken",
        summary="Revoke a worker's token",
        answers={204: None},
    )
    def revoke_token(self, request: Request, worker_id: UUID) -> Response:
        """Makes the service refuse the worker's token from now on."""
        services.revoke_token(worker=self.worker, actor=actor_of(request))
        return Response(status=204)


class WorkerApprovalViewSet(OneWorkerViewSet):
    """An admin's permission to send a worker secrets. No key can give it: a leaked key must not approve its worker."""

    tag = "Workers"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"approve": IsAdmin}

    @Operation(
        "POST /workers/{workerId}/approve",
        id="approveWorker",
        summary="Approve a worker",
        answers={200: WorkerSerializer},
    )
    def approve(self, request: Request, worker_id: UUID) -> Response:
        services.approve_worker(worker=self.worker, actor=actor_of(request))
        return Response(WorkerSerializer(queries.workers().get(id=worker_id)).data)


def _uuid_parameter(request: Request, name: str) -> UUID | None:
    sent = request.query_params.get(name)
    if sent is None:
        return None
    try:
        return UUID(sent)
    except ValueError:
        raise Invalid({name: ["Must be a UUID."]}) from None
