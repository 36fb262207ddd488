"""The endpoints by which admins invite e-mail addresses, and by which people accept (SPEC §15)."""

from uuid import UUID

from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.serializers import MailTokenBody
from accounts.sessions import CookieJWTAuthentication, PresentedSession
from accounts.throttles import ACCEPT_INVITATION, INVITE, LOOK_AT_INVITATION
from pipedai.api.principal import UserPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import read_body
from pipedai.api.views import ApiViewSet, IsPublic, IsSignedIn
from workspaces import members
from workspaces.access import IsAdmin, TenantViewSet
from workspaces.roles import Role
from workspaces.serializers import (
    AcceptedSerializer,
    InvitationBody,
    InvitationSerializer,
    NewInvitationSerializer,
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
    def create(self, request: Request, environment_id: UUID) -> Response:
        invitation, link = members.invite(
            **read_body(InvitationBody, request),
            environment_id=environment_id,
            actor=actor_of(request),
        )
        shown = NewInvitationSerializer(invitation, context={"link": link})
        return Response(shown.data, status=201)

    @Operation(
        "DELETE /environments/{environmentId}/invitations/{invitationId}",
        id="revokeInvitation",
        summary="Revoke an invitation",
        answers={204: None},
    )
    def destroy(self, request: Request, environment_id: UUID, invitation_id: UUID) -> Response:
        members.revoke_invitation(
            environment_id=environment_id,
            invitation_id=invitation_id,
            actor=actor_of(request),
        )
        return Response(status=204)


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
        answers={
            200: answer(
                "Invited",
                "An invitation, as the owner of its address sees it.",
                email=serializers.CharField(),
                role=serializers.ChoiceField(choices=Role.choices),
                inviterName=serializers.CharField(),
                inviterEmail=serializers.CharField(),
                workspaceName=serializers.CharField(),
                environmentName=serializers.CharField(),
                next=serializers.ChoiceField(choices=list(members.NextStep)),
            )
        },
    )
    def look(self, request: Request) -> Response:
        principal: object = request.user
        signed_in = principal.id if isinstance(principal, UserPrincipal) else None
        invitation, step = members.find_invitation(
            **read_body(MailTokenBody, request), user_id=signed_in
        )
        return Response(
            {
                "email": invitation.email,
                "role": invitation.role,
                "inviterName": invitation.invited_by.name,
                "inviterEmail": invitation.invited_by.email,
                "workspaceName": invitation.environment.workspace.name,
                "environmentName": invitation.environment.name,
                "next": step.value,
            }
        )


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
    def accept(self, request: Request) -> Response:
        member = members.accept_invitation(
            **read_body(MailTokenBody, request),
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        return Response(AcceptedSerializer(member).data)
