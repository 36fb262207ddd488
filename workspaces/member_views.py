"""The endpoints of an environment's members."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.sessions import CookieJWTAuthentication
from accounts.throttles import FIND_USER
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from workspaces import members
from workspaces.access import IsAdmin, IsViewer, TenantViewSet
from workspaces.models import Membership
from workspaces.serializers import MemberBody, MemberSerializer, RoleBody


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
    def create(self, request: Request, environment_id: UUID) -> Response:
        member = members.add_member(
            **read_body(MemberBody, request),
            environment_id=environment_id,
            actor=actor_of(request),
        )
        return Response(MemberSerializer(member).data, status=201)

    @Operation(
        "PATCH /environments/{environmentId}/members/{userId}",
        id="changeMemberRole",
        summary="Change a member's role",
        body=RoleBody,
        example={"role": "admin"},
        answers={200: MemberSerializer},
    )
    def update(self, request: Request, environment_id: UUID, user_id: UUID) -> Response:
        member = members.change_role(
            **read_body(RoleBody, request),
            environment_id=environment_id,
            user_id=user_id,
            actor=actor_of(request),
        )
        return Response(MemberSerializer(member).data)

    @Operation(
        "DELETE /environments/{environmentId}/members/{userId}",
        id="removeMember",
        summary="Remove a member",
        answers={204: None},
    )
    def destroy(self, request: Request, environment_id: UUID, user_id: UUID) -> Response:
        members.remove_member(
            environment_id=environment_id, user_id=user_id, actor=actor_of(request)
        )
        return Response(status=204)
