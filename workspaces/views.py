"""The endpoints of workspaces and environments."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.sessions import CookieJWTAuthentication
from pipedai.api.errors import NotFound
from pipedai.api.principal import actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from pipedai.api.views import ApiViewSet, IsSignedIn
from workspaces import services
from workspaces.access import (
    IsAdmin,
    IsOwner,
    IsViewer,
    TenantViewSet,
    environments_of,
    visible_workspaces,
)
from workspaces.locks import hold_right_to_create_in
from workspaces.models import Environment
from workspaces.roles import Role
from workspaces.serializers import (
    EnvironmentBody,
    EnvironmentSerializer,
    NameBody,
    WorkspaceSerializer,
)


class WorkspaceViewSet(ApiViewSet):
    """The workspaces that a user may see. No API key may, because it belongs to a single environment."""

    tag = "Workspaces"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsSignedIn, "create": IsSignedIn}

    @Operation(
        "GET /workspaces",
        id="listWorkspaces",
        summary="List workspaces",
        items=WorkspaceSerializer,
    )
    def list(self, request: Request) -> Response:
        rows = visible_workspaces(principal_of(request).id)
        return self.page(request, rows, WorkspaceSerializer)

    @Operation(
        "POST /workspaces",
        id="createWorkspace",
        summary="Make a workspace",
        body=NameBody,
        example={"name": "Acme"},
        answers={201: WorkspaceSerializer},
    )
    def create(self, request: Request) -> Response:
        workspace = services.create_workspace(
            **read_body(NameBody, request),
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        return Response(WorkspaceSerializer(workspace).data, status=201)


class WorkspaceEnvironmentViewSet(ApiViewSet):
    tag = "Environments"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsSignedIn, "create": IsSignedIn}

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Raises NotFound, and Forbidden for a user who may not create environments in the workspace."""
        user_id, workspace_id = principal_of(request).id, kwargs["workspace_id"]
        if self.action == "create":
            hold_right_to_create_in(workspace_id, user_id)
        elif not visible_workspaces(user_id).filter(id=workspace_id).exists():
            raise NotFound

    @Operation(
        "GET /workspaces/{workspaceId}/environments",
        id="listEnvironments",
        summary="List environments",
        items=EnvironmentSerializer,
    )
    def list(self, request: Request, workspace_id: UUID) -> Response:
        rows = environments_of(principal_of(request).id, workspace_id)
        return self.page(request, rows, EnvironmentSerializer)

    @Operation(
        "POST /workspaces/{workspaceId}/environments",
        id="createEnvironment",
        summary="Make an environment",
        body=NameBody,
        example={"name": "production"},
        answers={201: EnvironmentSerializer},
    )
    def create(self, request: Request, workspace_id: UUID) -> Response:
        environment: Any = services.create_environment(
            **read_body(NameBody, request),
            workspace_id=workspace_id,
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        environment.caller_role = Role.OWNER.value
        return Response(EnvironmentSerializer(environment).data, status=201)


class EnvironmentViewSet(TenantViewSet):
    tag = "Environments"
    permissions = {"retrieve": IsViewer, "update": IsAdmin, "destroy": IsOwner}

    @Operation(
        "GET /environments/{environmentId}",
        id="getEnvironment",
        summary="Get an environment",
        answers={200: EnvironmentSerializer},
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Response:
        return Response(self._shown(environment_id))

    @Operation(
        "PATCH /environments/{environmentId}",
        id="renameEnvironment",
        summary="Rename, pause or resume an environment",
        body=EnvironmentBody,
        partial=True,
        example={"paused": True, "pauseReason": "The database is being moved."},
        answers={200: EnvironmentSerializer},
    )
    def update(self, request: Request, environment_id: UUID) -> Response:
        services.update_environment(
            environment_id=environment_id,
            values=read_body(EnvironmentBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(self._shown(environment_id))

    @Operation(
        "DELETE /environments/{environmentId}",
        id="deleteEnvironment",
        summary="Delete an environment",
        answers={204: None},
    )
    def destroy(self, request: Request, environment_id: UUID) -> Response:
        services.delete_environment(environment_id=environment_id, actor=actor_of(request))
        return Response(status=204)

    def _shown(self, environment_id: UUID) -> Any:
        environment: Any = Environment.objects.get(id=environment_id)
        environment.caller_role = self.access.role.value
        return EnvironmentSerializer(environment).data
