"""The endpoints that a host calls: it manages its workers, streams their events, and learns of new releases."""

import json
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import condition, require_safe
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid, NotFound, or_not_found
from pipedai.api.pagination import MAX_LIMIT, KeysetPaginator
from pipedai.api.principal import HostPrincipal, KeyPrincipal, actor_of, principal_of
from pipedai.api.renderers import compact_json, iso_time
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, Values
from pipedai.api.views import (
    LAST_EVENT_ID,
    MEDIA_TYPE,
    ApiViewSet,
    IsPublic,
    StreamViewMixin,
    count_stream,
    event_text,
    stream_answer,
    ticket_of,
)
from pipedai.server.ticket import WorkerStreamTicket
from pipedai.sql import Row
from pipedai.version import VERSION
from workers import services
from workers.models import Worker
from workers.pools.services import pools_of_host
from workers.releases import Package, cli_package, worker_package
from workers.serializers import (
    RegistrationTokenBody,
    RegistrationTokenSerializer,
    WorkerFilters,
    WorkerSerializer,
    worker_rows,
)
from workers.worker_events import read_events
from workspaces.access import (
    Access,
    ApiKeyAuthentication,
    HostKeyAuthentication,
    IsAdmin,
    TenantViewSet,
)
from workspaces.api_keys import mint_registration_token
from workspaces.models import Environment
from workspaces.roles import HOST_ROLE, Role


class HostViewSet(TenantViewSet):
    """Lets a `hos_` key, or a `pwk_` key with the role admin, act in the key's one environment. It has no `row`:
    the key names the environment, and no row of the URL does.
    """

    authentication_classes = (HostKeyAuthentication, ApiKeyAuthentication)

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Checks that the key's environment is in the URL's workspace, and that the key may change its worker."""
        principal = principal_of(request)
        assert isinstance(principal, HostPrincipal | KeyPrincipal)
        role = HOST_ROLE if isinstance(principal, HostPrincipal) else Role(principal.role)
        self.access = Access(principal.environment_id, role, principal.workspace_id)
        if "workspace_id" in kwargs:
            own = Environment.objects.filter(
                id=principal.environment_id, workspace_id=kwargs["workspace_id"]
            )
            if not own.exists():
                raise NotFound
        if "worker_id" in kwargs:
            rows = Worker.objects.only("id", "environment_id").filter(
                id=kwargs["worker_id"],
                environment_id=principal.environment_id,
                deleted_at__isnull=True,
            )
            if isinstance(principal, HostPrincipal):
                # A host finds only the workers that it enrolled or for which it minted a token.
                rows = rows.filter(host_key_id=principal.id)
            self.worker = or_not_found(rows.first())


class HostPaginator(KeysetPaginator):
    default_limit = MAX_LIMIT


class WorkspaceWorkerViewSet(HostViewSet):
    """The workers of the key's environment, which must be in the URL's workspace."""

    tag = "Hosts"
    permissions = dict.fromkeys(("list", "disable", "enable", "destroy", "mint_token"), IsAdmin)
    pagination_class = HostPaginator

    @Operation(
        "GET /workspaces/{workspaceId}/workers",
        id="listHostWorkers",
        summary="List the workers of the key's environment",
        items=WorkerSerializer,
        filters=WorkerFilters,
    )
    def list(self, request: Request, workspace_id: UUID) -> Response:
        environment_id = self.access.environment_id
        rows = worker_rows().filter(environment_id=environment_id)
        filters = WorkerFilters.read(rows, request, environment_id=environment_id)
        return self.page(request, filters.qs, WorkerSerializer)

    @Operation(
        "POST /workspaces/{workspaceId}/workers/{workerId}/disable",
        id="disableHostWorker",
        summary="Pause a worker",
        body=Body,
        answers={200: WorkerSerializer},
    )
    def disable(self, request: Request, body: Values, **_ids: UUID) -> Any:
        return self._set_disabled(request, disabled=True)

    @Operation(
        "POST /workspaces/{workspaceId}/workers/{workerId}/enable",
        id="enableHostWorker",
        summary="Resume a worker",
        body=Body,
        answers={200: WorkerSerializer},
    )
    def enable(self, request: Request, body: Values, **_ids: UUID) -> Any:
        return self._set_disabled(request, disabled=False)

    @Operation(
        "DELETE /workspaces/{workspaceId}/workers/{workerId}",
        id="deregisterHostWorker",
        summary="Deregister a worker of a host",
    )
    def destroy(self, request: Request, workspace_id: UUID, worker_id: UUID) -> None:
        services.deregister_worker(worker=self.worker, reassign_to=None, actor=actor_of(request))

    @Operation(
        "POST /workspaces/{workspaceId}/workers/registration-token",
        id="mintRegistrationToken",
        summary="Mint a registration token",
        body=RegistrationTokenBody,
        example={"label": "build-2"},
        answers={201: RegistrationTokenSerializer},
    )
    def mint_token(self, request: Request, workspace_id: UUID, body: Values) -> Any:
        principal = principal_of(request)
        # A host may name only pools that its own workers are in; a `pwk_` key may name any.
        if isinstance(principal, HostPrincipal) and not pools_of_host(principal.id).issuperset(
            body.get("pool_ids", ())
        ):
            raise Invalid({"poolIds": ["One of the ids is no pool of a worker of this host."]})
        return mint_registration_token(
            **body, environment_id=self.access.environment_id, actor=actor_of(request)
        )

    def _set_disabled(self, request: Request, *, disabled: bool) -> Any:
        services.update_worker(
            worker=self.worker, values={"disabled": disabled}, actor=actor_of(request)
        )
        return worker_rows().get(id=self.worker.id)


class WorkerEventViewSet(StreamViewMixin, HostViewSet):
    """The endpoint that streams the events of one worker to its host or to an admin's script."""

    tag = "Hosts"
    permissions = {"stream": IsAdmin}

    @Operation(
        "GET /workers/{workerId}/events/stream",
        id="streamWorkerEvents",
        summary="Stream a worker's events",
        parameters=(LAST_EVENT_ID,),
        answers={
            200: answer(
                "WorkerEvent",
                "An event of a worker: the `data` of a server-sent event.",
                type=serializers.CharField(),
                ts=serializers.DateTimeField(),
                workerId=serializers.UUIDField(),
                runId=serializers.UUIDField(required=False),
                triggerId=serializers.UUIDField(required=False),
                status=serializers.CharField(required=False),
                maxConcurrency=serializers.IntegerField(required=False),
            )
        },
        media_type=MEDIA_TYPE,
    )
    def stream(self, request: Request, worker_id: UUID) -> HttpResponse:
        """Answers with the events that the client has not read. The web process calls it again and again as long as the
        client reads; the ticket remembers what was sent.
        """
        principal = principal_of(request)
        assert isinstance(principal, HostPrincipal | KeyPrincipal)
        ticket = ticket_of(request, WorkerStreamTicket, group=principal.workspace_id)
        count_stream(request, ticket)
        last_event_id = request.META.get("HTTP_LAST_EVENT_ID")
        rows = read_events(ticket, worker_id=worker_id, last_event_id=last_event_id)
        return stream_answer("".join(_text_of(row, worker_id) for row in rows))


def _text_of(row: Row, worker_id: UUID) -> str:
    data = {
        "type": row["type"],
        "ts": iso_time(row["at"]),
        "workerId": worker_id,
        **json.loads(row["data"]),
    }
    return event_text(compact_json(data), id_=row["id"])


_LATEST = {"latest": serializers.CharField(), "source": serializers.CharField()}
_RELEASE = answer("Release", "The newest version of a program, and who says so.", **_LATEST)
_OWN_RELEASE = answer(
    "OwnRelease",
    "The version of a program of this service's own, and how to install it.",
    **_LATEST,
    url=serializers.CharField(),
    sha256=serializers.CharField(),
    install=serializers.CharField(),
)


class ReleaseViewSet(ApiViewSet):
    """The endpoint that names the newest versions of a host's programs: the worker and the orchestrator."""

    tag = "Hosts"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    @Operation(
        "GET /releases/latest",
        id="getLatestReleases",
        summary="Get the newest versions of the programs",
        answers={
            200: answer(
                "Releases",
                "The newest versions of what runs on hosts.",
                pipedaiWorker=_OWN_RELEASE(),
                pipedai=_OWN_RELEASE(),
                pipedaiOrchestrator=_RELEASE(),
            )
        },
    )
    def retrieve(self, request: Request) -> Any:
        orchestrator = {"latest": settings.LATEST_ORCHESTRATOR_VERSION, "source": "settings"}
        return {
            "pipedaiWorker": _own(worker_package()),
            "pipedai": _own(cli_package()),
            "pipedaiOrchestrator": orchestrator,
        }


def _own(package: Package) -> dict[str, str]:
    return {
        "latest": VERSION,
        "source": "build",
        "url": package.url,
        "sha256": package.sha256,
        "install": package.install_command,
    }


def _package(name: str) -> Package | None:
    packages = (worker_package(), cli_package())
    return next((package for package in packages if package.name == name), None)


def _etag(_request: HttpRequest, name: str) -> str | None:
    package = _package(name)
    return f'"{package.sha256}"' if package else None


@require_safe
@condition(etag_func=_etag)
def download(_request: HttpRequest, name: str) -> HttpResponse:
    """Answers GET /downloads/<name>, which is public, with a wheel of this release. Other names are a 404."""
    package = _package(name)
    if package is None:
        raise Http404
    response = HttpResponse(package.content, content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="{package.name}"'
    # A cache must ask again before each use. The install command names the digest of the newest wheel, so hosts would
    # refuse an older wheel from a cache.
    response["Cache-Control"] = "no-cache"
    return response
