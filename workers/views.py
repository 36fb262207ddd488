"""The endpoints of workers for people and their scripts, and the one that tells callers who they are."""

from datetime import datetime
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Session
from accounts.sessions import CookieJWTAuthentication
from pipedai.api.errors import Invalid
from pipedai.api.pagination import counts_of
from pipedai.api.principal import (
    KeyPrincipal,
    Principal,
    UserPrincipal,
    WorkerPrincipal,
    actor_of,
    principal_of,
)
from pipedai.api.schema.operation import Operation, answer, query
from pipedai.api.serializers import Values
from pipedai.api.views import ApiViewSet, IsSignedIn
from workers import services
from workers.authentication import WorkerTokenAuthentication
from workers.models import Worker
from workers.serializers import (
    KINDS,
    ONLINE,
    ListedWorkerFilters,
    ListedWorkerSerializer,
    WorkerBody,
    WorkerSerializer,
    with_recent_runs,
    worker_rows,
)
from workspaces.access import (
    ApiKeyAuthentication,
    HostKeyAuthentication,
    IsAdmin,
    IsViewer,
    TenantViewSet,
)
from workspaces.models import ApiKey
from workspaces.roles import KEY_ROLES


class WorkerViewSet(TenantViewSet):
    tag = "Workers"
    row = ("worker_id", "SELECT id, environment_id FROM worker WHERE deleted_at IS NULL")
    permissions = {
        "list": IsViewer,
        "retrieve": IsViewer,
        "update": IsAdmin,
        "destroy": IsAdmin,
        "revoke_token": IsAdmin,
    }

    @Operation(
        "GET /environments/{environmentId}/workers",
        id="listWorkers",
        summary="List workers",
        items=ListedWorkerSerializer,
        filters=ListedWorkerFilters,
        counts=tuple(KINDS),
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = worker_rows().filter(environment_id=environment_id)
        filters = ListedWorkerFilters.read(rows, request, environment_id=environment_id)
        include = filters.values["include"]

        def shown(found: Any) -> Any:
            if "recent" not in include:
                return WorkerSerializer(found, many=True).data
            return ListedWorkerSerializer(with_recent_runs(found, environment_id), many=True).data

        response = self.page_shown(request, filters.qs, shown)
        if "counts" in include:
            live = Worker.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
            response.data["counts"] = counts_of(live.annotate(online=ONLINE), KINDS)
        return response

    @Operation(
        "GET /workers/{workerId}",
        id="getWorker",
        summary="Get a worker",
        answers={200: WorkerSerializer},
    )
    def retrieve(self, request: Request, worker_id: UUID) -> Any:
        return worker_rows().get(id=worker_id)

    @Operation(
        "PATCH /workers/{workerId}",
        id="updateWorker",
        summary="Change a worker",
        body=WorkerBody,
        partial=True,
        example={"maxConcurrency": 2},
        answers={200: WorkerSerializer},
    )
    def update(self, request: Request, worker_id: UUID, body: Values) -> Any:
        worker = _worker(self, worker_id)
        services.update_worker(worker=worker, values=body, actor=actor_of(request))
        return worker_rows().get(id=worker_id)

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
    )
    def destroy(self, request: Request, worker_id: UUID) -> None:
        heir = request.query_params.get("reassignTo")
        try:
            reassign_to = None if heir is None else UUID(heir)
        except ValueError:
            raise Invalid({"reassignTo": ["Must be a UUID."]}) from None
        services.deregister_worker(
            worker=_worker(self, worker_id),
            reassign_to=reassign_to,
            actor=actor_of(request),
        )

    @Operation(
        "POST /workers/{workerId}/revoke-token",
        id="revokeWorkerToken",
        summary="Revoke a worker's token",
    )
    def revoke_token(self, request: Request, worker_id: UUID) -> None:
        services.revoke_token(worker=_worker(self, worker_id), actor=actor_of(request))


class WorkerApprovalViewSet(TenantViewSet):
    """An admin's permission to send a worker secrets. No key can give it: a leaked key must not approve its worker."""

    tag = "Workers"
    row = WorkerViewSet.row
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"approve": IsAdmin}

    @Operation(
        "POST /workers/{workerId}/approve",
        id="approveWorker",
        summary="Approve a worker",
        answers={200: WorkerSerializer},
    )
    def approve(self, request: Request, worker_id: UUID) -> Any:
        services.approve_worker(worker=_worker(self, worker_id), actor=actor_of(request))
        return worker_rows().get(id=worker_id)


def _worker(view: TenantViewSet, worker_id: UUID) -> Worker:
    return Worker(id=worker_id, environment_id=view.access.environment_id)


CALLER_KINDS = ("user", "api_key", "worker", "host")


class WhoAmIViewSet(ApiViewSet):
    """Tells the caller who they are and which environment they are in."""

    tag = "Accounts"
    authentication_classes = (
        CookieJWTAuthentication,
        ApiKeyAuthentication,
        HostKeyAuthentication,
        WorkerTokenAuthentication,
    )
    permissions = {"retrieve": IsSignedIn}

    @Operation(
        "GET /whoami",
        id="whoAmI",
        summary="Get who is calling",
        answers={
            200: answer(
                "Caller",
                "Who is calling, and where.",
                kind=serializers.ChoiceField(choices=CALLER_KINDS),
                id=serializers.UUIDField(),
                name=serializers.CharField(),
                role=serializers.ChoiceField(choices=KEY_ROLES, allow_null=True),
                environmentId=serializers.UUIDField(allow_null=True),
                workspaceId=serializers.UUIDField(allow_null=True),
                expiresAt=serializers.DateTimeField(allow_null=True),
            )
        },
    )
    def retrieve(self, request: Request) -> Any:
        principal = principal_of(request)
        kind, name, expires_at = _described(principal)
        return {
            "kind": kind,
            "id": principal.id,
            "name": name,
            "role": principal.role if isinstance(principal, KeyPrincipal) else None,
            "environmentId": getattr(principal, "environment_id", None),
            "workspaceId": getattr(principal, "workspace_id", None),
            "expiresAt": expires_at,
        }


def _described(principal: Principal) -> tuple[str, str, datetime | None]:
    """Returns a caller's kind, its name and when its credentials expire, in one query."""
    row: Any
    if isinstance(principal, UserPrincipal):
        row = Session.objects.values_list("user__email", "expires_at").get(id=principal.session_id)
        return ("user", *row)
    if isinstance(principal, WorkerPrincipal):
        return "worker", Worker.objects.values_list("label", flat=True).get(id=principal.id), None
    row = ApiKey.objects.values_list("name", "expires_at").get(id=principal.id)
    return ("api_key" if isinstance(principal, KeyPrincipal) else "host", *row)
