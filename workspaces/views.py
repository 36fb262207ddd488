"""The workspace, environment, member and API-key endpoints."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import CookieJWTAuthentication
from accounts.throttles import FIND_USER
from pipedai.api.errors import Forbidden, NotFound
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.permissions import IsSignedIn
from pipedai.api.principal import actor_of, principal_of
from pipedai.api.serializers import read_body
from pipedai.api.views import ApiViewSet
from workspaces import api_keys, members, queries, services
from workspaces.access import TenantViewSet
from workspaces.acting import MAY_NOT_CREATE
from workspaces.models import ApiKey, Environment, Membership, Workspace
from workspaces.permissions import IsAdmin, IsOwner, IsViewer
from workspaces.roles import Role
from workspaces.serializers import (
    ApiKeyBody,
    ApiKeySerializer,
    EnvironmentSerializer,
    MemberBody,
    MemberSerializer,
    NameBody,
    RoleBody,
    WorkspaceSerializer,
)


class WorkspaceViewSet(ApiViewSet):
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsSignedIn, "create": IsSignedIn}

    def list(self, request: Request) -> Response:
        """GET /workspaces"""
        rows = queries.visible_workspaces(principal_of(request).id)
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(rows, request, self)
        return paginator.get_paginated_response(WorkspaceSerializer(page, many=True).data)

    def create(self, request: Request) -> Response:
        """POST /workspaces"""
        workspace = services.create_workspace(
            **read_body(NameBody, request),
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        return Response(WorkspaceSerializer(workspace).data, status=201)


class WorkspaceEnvironmentViewSet(ApiViewSet):
    """The environments of a workspace that the user is a member of."""

    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsSignedIn, "create": IsSignedIn}
    workspace: Workspace

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Finds the workspace. Raises NotFound, and Forbidden for a user who may see it but not create in it."""
        user_id = principal_of(request).id
        workspace = queries.visible_workspaces(user_id).filter(id=kwargs["workspace_id"]).first()
        if workspace is None:
            raise NotFound
        if self.action == "create" and not queries.may_create_environments(user_id, workspace):
            raise Forbidden(MAY_NOT_CREATE)
        self.workspace = workspace

    def list(self, request: Request, workspace_id: UUID) -> Response:
        """GET /workspaces/:wsId/environments"""
        rows = queries.environments_of(principal_of(request).id, workspace_id)
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(rows, request, self)
        return paginator.get_paginated_response(EnvironmentSerializer(page, many=True).data)

    def create(self, request: Request, workspace_id: UUID) -> Response:
        """POST /workspaces/:wsId/environments"""
        environment: Any = services.create_environment(
            **read_body(NameBody, request),
            workspace_id=workspace_id,
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        environment.caller_role = Role.OWNER.value
        return Response(EnvironmentSerializer(environment).data, status=201)


class EnvironmentViewSet(TenantViewSet):
    permissions = {"retrieve": IsViewer, "update": IsAdmin, "destroy": IsOwner}

    def retrieve(self, request: Request, environment_id: UUID) -> Response:
        """GET /environments/:id"""
        return Response(self._shown(environment_id))

    def update(self, request: Request, environment_id: UUID) -> Response:
        """PATCH /environments/:id"""
        services.rename_environment(
            **read_body(NameBody, request),
            environment_id=environment_id,
            actor=actor_of(request),
        )
        return Response(self._shown(environment_id))

    def destroy(self, request: Request, environment_id: UUID) -> Response:
        """DELETE /environments/:id"""
        services.delete_environment(environment_id=environment_id, actor=actor_of(request))
        return Response(status=204)

    def _shown(self, environment_id: UUID) -> Any:
        environment: Any = Environment.objects.get(id=environment_id)
        environment.caller_role = self.access.role.value
        return EnvironmentSerializer(environment).data


class MemberViewSet(TenantViewSet):
    """The members of an environment. Only people can manage them, and no key can."""

    authentication_classes = (CookieJWTAuthentication,)
    permissions = {
        "list": IsViewer,
        "create": IsAdmin,
        "update": IsAdmin,
        "destroy": IsViewer,  # members may remove themselves; the service checks the rest
    }
    throttles = {"create": FIND_USER}

    def list(self, request: Request, environment_id: UUID) -> Response:
        """GET /environments/:envId/members"""
        rows = Membership.objects.filter(environment_id=environment_id).select_related("user")
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(rows, request, self)
        return paginator.get_paginated_response(MemberSerializer(page, many=True).data)

    def create(self, request: Request, environment_id: UUID) -> Response:
        """POST /environments/:envId/members"""
        member = members.add_member(
            **read_body(MemberBody, request),
            environment_id=environment_id,
            actor=actor_of(request),
        )
        return Response(MemberSerializer(member).data, status=201)

    def update(self, request: Request, environment_id: UUID, user_id: UUID) -> Response:
        """PATCH /environments/:envId/members/:userId"""
        member = members.change_role(
            **read_body(RoleBody, request),
            environment_id=environment_id,
            user_id=user_id,
            actor=actor_of(request),
        )
        return Response(MemberSerializer(member).data)

    def destroy(self, request: Request, environment_id: UUID, user_id: UUID) -> Response:
        """DELETE /environments/:envId/members/:userId"""
        members.remove_member(
            environment_id=environment_id, user_id=user_id, actor=actor_of(request)
        )
        return Response(status=204)


class ApiKeyViewSet(TenantViewSet):
    """The API keys of an environment. Only people can manage them, and no key can."""

    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsViewer, "create": IsAdmin, "destroy": IsAdmin}

    def list(self, request: Request, environment_id: UUID) -> Response:
        """GET /environments/:envId/api-keys"""
        rows = ApiKey.objects.filter(environment_id=environment_id).defer("token_digest")
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(rows, request, self)
        return paginator.get_paginated_response(ApiKeySerializer(page, many=True).data)

    def create(self, request: Request, environment_id: UUID) -> Response:
        """POST /environments/:envId/api-keys: the only answer that holds the token."""
        key, token = api_keys.mint_api_key(
            **read_body(ApiKeyBody, request),
            environment_id=environment_id,
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        return Response({**ApiKeySerializer(key).data, "token": token}, status=201)

    def destroy(self, request: Request, environment_id: UUID, key_id: UUID) -> Response:
        """DELETE /environments/:envId/api-keys/:keyId"""
        api_keys.revoke_api_key(
            environment_id=environment_id, key_id=key_id, actor=actor_of(request)
        )
        return Response(status=204)
