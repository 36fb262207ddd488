"""The endpoints of workspaces and environments, and of an environment's members, invitations and API keys."""

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.serializers import MailTokenBody
from accounts.sessions import CookieJWTAuthentication, PresentedSession
from accounts.throttles import ACCEPT_INVITATION, FIND_USER, INVITE, LOOK_AT_INVITATION
from pipedai.api.errors import NotFound
from pipedai.api.principal import UserPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import Values
from pipedai.api.views import ApiViewSet, IsPublic, IsSignedIn
from workspaces import api_keys, members, services
from workspaces.access import (
    IsAdmin,
    IsOwner,
    IsViewer,
    TenantViewSet,
    environments_of,
    visible_workspaces,
)
from workspaces.locks import hold_right_to_create_in
from workspaces.models import ApiKey, Environment, Membership
from workspaces.roles import Role
from workspaces.serializers import (
    AcceptedSerializer,
    ApiKeyBody,
    ApiKeySerializer,
    EnvironmentBody,
    EnvironmentSerializer,
    InvitationBody,
    InvitationSerializer,
    MemberBody,
    MemberSerializer,
    MintedApiKeySerializer,
    NameBody,
    NewInvitationSerializer,
    RoleBody,
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
    def create(self, request: Request, body: Values) -> Any:
        return services.create_workspace(
            **body, user_id=principal_of(request).id, actor=actor_of(request)
        )


class WorkspaceEnvironmentViewSet(ApiViewSet):
    tag = "Environments"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsSignedIn, "create": IsSignedIn}

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Checks that the user may create environments in the workspace. Raises NotFound, Forbidden."""
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
    def create(self, request: Request, workspace_id: UUID, body: Values) -> Any:
        environment: Any = services.create_environment(
            **body,
            workspace_id=workspace_id,
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        environment.caller_role = Role.OWNER.value
        return environment


class EnvironmentViewSet(TenantViewSet):
    tag = "Environments"
    permissions = {"retrieve": IsViewer, "update": IsAdmin, "destroy": IsOwner}

    @Operation(
        "GET /environments/{environmentId}",
        id="getEnvironment",
        summary="Get an environment",
        answers={200: EnvironmentSerializer},
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Any:
        return self._shown(environment_id)

    @Operation(
        "PATCH /environments/{environmentId}",
        id="renameEnvironment",
        summary="Rename, pause or resume an environment",
        body=EnvironmentBody,
        partial=True,
        example={"paused": True, "pauseReason": "The database is being moved."},
        answers={200: EnvironmentSerializer},
    )
    def update(self, request: Request, environment_id: UUID, body: Values) -> Any:
        services.update_environment(
            environment_id=environment_id, values=body, actor=actor_of(request)
        )
        return self._shown(environment_id)

    @Operation(
        "DELETE /environments/{environmentId}",
        id="deleteEnvironment",
        summary="Delete an environment",
    )
    def destroy(self, request: Request, environment_id: UUID) -> None:
        services.delete_environment(environment_id=environment_id, actor=actor_of(request))

    def _shown(self, environment_id: UUID) -> Any:
        environment: Any = Environment.objects.get(id=environment_id)
        environment.caller_role = self.access.role.value
        return environment


class MemberViewSet(TenantViewSet):
    """The members of an environment. Only a person's session can call these endpoints, and no API key."""

    tag = "Members"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {
        "list": IsViewer,
        "create": IsAdmin,
        "update": IsAdmin,
        "destroy": IsViewer,  # Any member may leave. The service lets only admins remove others.
    }
    throttles = {"create": FIND_USER}

    @Operation(
        "GET /environments/{environmentId}/members",
        id="listMembers",
        summary="List members",
        items=MemberSerializer,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = Membership.objects.filter(environment_id=environment_id).select_related("user")
        return self.page(request, rows, MemberSerializer)

    @Operation(
        "POST /environments/{environmentId}/members",
        id="addMember",
        summary="Add a member",
        body=MemberBody,
        example={"email": "grace@example.com", "role": "operator"},
        answers={201: MemberSerializer},
    )
    def create(self, request: Request, environment_id: UUID, body: Values) -> Any:
        return members.add_member(**body, environment_id=environment_id, actor=actor_of(request))

    @Operation(
        "PATCH /environments/{environmentId}/members/{userId}",
        id="changeMemberRole",
        summary="Change a member's role",
        body=RoleBody,
        example={"role": "admin"},
        answers={200: MemberSerializer},
    )
    def update(self, request: Request, environment_id: UUID, user_id: UUID, body: Values) -> Any:
        return members.change_role(
            **body, environment_id=environment_id, user_id=user_id, actor=actor_of(request)
        )

    @Operation(
        "DELETE /environments/{environmentId}/members/{userId}",
        id="removeMember",
        summary="Remove a member",
    )
    def destroy(self, request: Request, environment_id: UUID, user_id: UUID) -> None:
        members.remove_member(
            environment_id=environment_id, user_id=user_id, actor=actor_of(request)
        )


class InvitationViewSet(TenantViewSet):
    """The open invitations into an environment. Only a person's session can call these endpoints, and no API key."""

    tag = "Members"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsAdmin, "create": IsAdmin, "destroy": IsAdmin}
    throttles = {"create": INVITE}

    @Operation(
        "GET /environments/{environmentId}/invitations",
        id="listInvitations",
        summary="List open invitations",
        items=InvitationSerializer,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = members.open_invitations(environment_id)
        return self.page(request, rows, InvitationSerializer)

    @Operation(
        "POST /environments/{environmentId}/invitations",
        id="createInvitation",
        summary="Invite somebody by e-mail",
        body=InvitationBody,
        example={"email": "grace@example.com", "role": "operator"},
        answers={201: NewInvitationSerializer},
    )
    def create(self, request: Request, environment_id: UUID, body: Values) -> Any:
        invitation: Any
        invitation, invitation.link = members.invite(
            **body, environment_id=environment_id, actor=actor_of(request)
        )
        return invitation

    @Operation(
        "DELETE /environments/{environmentId}/invitations/{invitationId}",
        id="revokeInvitation",
        summary="Revoke an invitation",
    )
    def destroy(self, request: Request, environment_id: UUID, invitation_id: UUID) -> None:
        members.revoke_invitation(
            environment_id=environment_id,
            invitation_id=invitation_id,
            actor=actor_of(request),
        )


class InvitedSerializer(serializers.Serializer[Any]):
    """An invitation, as the owner of its address sees it."""

    email = serializers.CharField(source="invitation.email")
    role = serializers.ChoiceField(choices=Role.choices, source="invitation.role")
    inviterName = serializers.CharField(source="invitation.invited_by.name")
    inviterEmail = serializers.CharField(source="invitation.invited_by.email")
    workspaceName = serializers.CharField(source="invitation.environment.workspace.name")
    environmentName = serializers.CharField(source="invitation.environment.name")
    next = serializers.ChoiceField(choices=list(members.NextStep))


class InvitedViewSet(ApiViewSet):
    """What somebody with the token of an invitation sees of it. They may have no account yet."""

    tag = "Members"
    permissions = {"look": IsPublic}
    browser_entries = frozenset({"look"})
    throttles = {"look": LOOK_AT_INVITATION}

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [PresentedSession()]

    @Operation(
        "POST /invitations/look",
        id="lookAtInvitation",
        summary="Look at an invitation",
        body=MailTokenBody,
        example={"token": "acc_2jmGzT6n…"},
        answers={200: InvitedSerializer},
    )
    def look(self, request: Request, body: Values) -> Any:
        principal: object = request.user
        signed_in = principal.id if isinstance(principal, UserPrincipal) else None
        invitation, step = members.find_invitation(**body, user_id=signed_in)
        return {"invitation": invitation, "next": step}


class AcceptViewSet(ApiViewSet):
    tag = "Members"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"accept": IsSignedIn}
    throttles = {"accept": ACCEPT_INVITATION}

    @Operation(
        "POST /invitations/accept",
        id="acceptInvitation",
        summary="Accept an invitation",
        body=MailTokenBody,
        example={"token": "acc_2jmGzT6n…"},
        answers={200: AcceptedSerializer},
    )
    def accept(self, request: Request, body: Values) -> Any:
        return members.accept_invitation(
            **body, user_id=principal_of(request).id, actor=actor_of(request)
        )


class ApiKeyViewSet(TenantViewSet):
    """The API keys of an environment. Only a person's session can call these endpoints, and no API key."""

    tag = "API keys"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsViewer, "create": IsAdmin, "destroy": IsAdmin}

    @Operation(
        "GET /environments/{environmentId}/api-keys",
        id="listApiKeys",
        summary="List API keys",
        items=ApiKeySerializer,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = ApiKey.objects.filter(environment_id=environment_id).defer("token_digest")
        return self.page(request, rows, ApiKeySerializer)

    @Operation(
        "POST /environments/{environmentId}/api-keys",
        id="createApiKey",
        summary="Mint an API key",
        body=ApiKeyBody,
        example={"name": "deploy script", "prefix": "pwk", "role": "operator"},
        answers={201: MintedApiKeySerializer},
    )
    def create(self, request: Request, environment_id: UUID, body: Values) -> Response:
        key, token = api_keys.mint_api_key(
            **body,
            environment_id=environment_id,
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        return Response({**ApiKeySerializer(key).data, "token": token}, status=201)

    @Operation(
        "DELETE /environments/{environmentId}/api-keys/{keyId}",
        id="revokeApiKey",
        summary="Revoke an API key",
    )
    def destroy(self, request: Request, environment_id: UUID, key_id: UUID) -> None:
        api_keys.revoke_api_key(
            environment_id=environment_id, key_id=key_id, actor=actor_of(request)
        )
