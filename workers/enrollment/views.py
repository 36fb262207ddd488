"""The endpoints of enrollment. Admins issue codes, hosts begin pairings, and both are exchanged for tokens."""

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.sessions import CookieJWTAuthentication
from pipedai.api.fields import IdField, NameField, TextField
from pipedai.api.principal import actor_from, actor_of, address_of, principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, NamedSerializer, StrictBody, Values, serializer_of
from pipedai.api.throttling import Rate, Throttle, by_address
from pipedai.api.views import ApiViewSet, IsPublic, IsSignedIn
from workers.enrollment import issuing
from workers.enrollment.redeeming import Redeemed, redeem, redeem_login
from workers.models import Enrollment, Worker
from workers.serializers import AccountIdField, AuthModeField
from workspaces.access import IsAdmin, TenantViewSet, environments_with
from workspaces.roles import KEY_ROLES, Role
from workspaces.serializers import ApiKeySerializer, PoolIdsField, check_expires_at


class EnrollmentBody(StrictBody):
    label = NameField(max_length=255, allow_null=True, default=None)  # type: ignore[assignment]
    authMode = AuthModeField(choices=Worker.AuthMode.choices, default=Worker.AuthMode.CLAUDE_MAX)
    expiresAt = serializers.DateTimeField(allow_null=True, default=None)
    poolIds = PoolIdsField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_expires_at(attrs["expires_at"], short_lived="A code")
        return attrs


# For each program that can ask for a pairing, the kind of enrollment that it begins.
_PAIRED = {"host": Enrollment.Kind.DEVICE.value, "command_line": Enrollment.Kind.KEY.value}


class PairingBody(Body):
    label = NameField(max_length=255, allow_null=True, default=None)  # type: ignore[assignment]

    def get_fields(self) -> dict[str, Any]:
        # `for` is a keyword of Python, so the field can't be a class attribute.
        choice = serializers.ChoiceField(source="kind", choices=list(_PAIRED), default="host")
        return {**super().get_fields(), "for": choice}

    def validate_for(self, value: str) -> str:
        return _PAIRED[value]


class UserCodeBody(StrictBody):
    userCode = TextField(max_length=64)


class ApprovalBody(UserCodeBody):
    """What a person decides about a pairing: `authMode` is for a host, and `role` for a command line."""

    environmentId = IdField()
    authMode = AuthModeField(choices=Worker.AuthMode.choices, default=Worker.AuthMode.CLAUDE_MAX)
    role = serializers.ChoiceField(
        choices=[role.value for role in KEY_ROLES], default=Role.VIEWER.value
    )

    def validate_role(self, value: str) -> Role:
        return Role(value)


class WaitingPairingSerializer(NamedSerializer):
    """A pairing that waits, for whoever typed its code. All that it says of itself is unverified."""

    of = Enrollment
    shows = "label askedFrom askedBy createdAt expiresAt environments"
    askedFrom = serializers.CharField(allow_null=True)
    environments = serializers.SerializerMethodField()

    def get_fields(self) -> dict[str, Any]:
        return {"for": serializers.SerializerMethodField(), **super().get_fields()}

    def get_for(self, pairing: Enrollment) -> str:
        """`host` or `command_line`."""
        return next(name for name, kind in _PAIRED.items() if kind == pairing.kind)

    def get_environments(self, pairing: Enrollment) -> list[dict[str, Any]]:
        """The environments for which the visitor may approve it."""
        needs = Role.VIEWER if pairing.kind == Enrollment.Kind.KEY else Role.ADMIN
        return [
            {"id": each.id, "name": each.name, "workspaceName": each.workspace.name}
            for each in environments_with(needs, self.context["user_id"])
        ]


class RedeemLoginBody(Body):
    deviceCode = TextField(max_length=255)


class RedeemBody(Body):
    code = TextField(max_length=255, default=None)
    deviceCode = TextField(max_length=255, default=None)
    hostname = NameField(max_length=255)
    os = NameField(max_length=255)
    version = NameField(max_length=64)
    label = NameField(max_length=255, allow_null=True, default=None)  # type: ignore[assignment]
    accountId = AccountIdField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if (attrs["code"] is None) == (attrs["device_code"] is None):
            raise serializers.ValidationError("Send either code or deviceCode.")
        return attrs


class EnrollmentSerializer(NamedSerializer):
    """An enrollment without its code. Only the answer to the call that issues a code shows the code."""

    of = Enrollment
    shows = (
        "id kind label authMode lastFour createdBy createdAt expiresAt poolIds revokedAt"
        " consumedAt workerId"
    )
    lastFour = serializers.SerializerMethodField()
    createdBy = serializers.UUIDField(source="decided_by_id", allow_null=True)
    poolIds = serializers.SerializerMethodField()

    def get_lastFour(self, enrollment: Enrollment) -> str | None:  # noqa: N802
        """The last four characters of the `enr_` code; null for a pairing, whose code is never shown."""
        return enrollment.last_four if enrollment.kind == Enrollment.Kind.CODE else None

    def get_poolIds(self, enrollment: Enrollment) -> list[UUID]:  # noqa: N802
        """The pools that the host's worker joins; empty for a pairing."""
        return enrollment.pool_ids or []


class IssuedEnrollmentSerializer(EnrollmentSerializer):
    """A new enrollment with its code, which is shown this once."""

    code = serializers.CharField()


class EnvironmentEnrollmentViewSet(TenantViewSet):
    """The enrollments of an environment. No API key can call these endpoints, since an enrollment makes a new key."""

    tag = "Hosts"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsAdmin, "create": IsAdmin, "destroy": IsAdmin}

    @Operation(
        "GET /environments/{environmentId}/enrollments",
        id="listEnrollments",
        summary="List enrollments",
        items=EnrollmentSerializer,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = Enrollment.objects.filter(environment_id=environment_id)
        return self.page(request, rows, EnrollmentSerializer)

    @Operation(
        "POST /environments/{environmentId}/enrollments",
        id="createEnrollment",
        summary="Issue an enrollment code",
        body=EnrollmentBody,
        example={"label": "build-2"},
        answers={201: IssuedEnrollmentSerializer},
    )
    def create(self, request: Request, environment_id: UUID, body: Values) -> Response:
        enrollment, code = issuing.issue_code(
            **body,
            environment_id=environment_id,
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        return Response({**EnrollmentSerializer(enrollment).data, "code": code}, status=201)

    @Operation(
        "DELETE /environments/{environmentId}/enrollments/{enrollmentId}",
        id="revokeEnrollment",
        summary="Revoke an enrollment",
    )
    def destroy(self, request: Request, environment_id: UUID, enrollment_id: UUID) -> None:
        issuing.revoke_enrollment(
            environment_id=environment_id, enrollment_id=enrollment_id, actor=actor_of(request)
        )


class PairingViewSet(ApiViewSet):
    """A person decides on a pairing whose code they have typed. The code lets them see it, and their role decides."""

    tag = "Hosts"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"look": IsSignedIn, "approve": IsSignedIn, "deny": IsSignedIn}

    @Operation(
        "POST /pairings/look",
        id="lookAtPairing",
        summary="Look at a pairing",
        body=UserCodeBody,
        answers={200: WaitingPairingSerializer},
    )
    def look(self, request: Request, body: Values) -> Response:
        user_id = principal_of(request).id
        found = issuing.find_pending(typed=body["user_code"], user_id=user_id)
        return Response(WaitingPairingSerializer(found, context={"user_id": user_id}).data)

    @Operation(
        "POST /pairings/approve",
        id="approvePairing",
        summary="Approve a pairing",
        body=ApprovalBody,
    )
    def approve(self, request: Request, body: Values) -> None:
        user_id = principal_of(request).id
        found = issuing.find_pending(typed=body["user_code"], user_id=user_id)
        unused = "role" if found.kind == Enrollment.Kind.DEVICE else "auth_mode"
        decided = {"auth_mode": body["auth_mode"], "role": body["role"], unused: None}
        issuing.approve_pairing(
            enrollment_id=found.id,
            environment_id=body["environment_id"],
            **decided,
            user_id=user_id,
            actor=actor_of(request),
        )

    @Operation(
        "POST /pairings/deny",
        id="denyPairing",
        summary="Deny a pairing",
        body=UserCodeBody,
    )
    def deny(self, request: Request, body: Values) -> None:
        user_id = principal_of(request).id
        found = issuing.find_pending(typed=body["user_code"], user_id=user_id)
        issuing.deny_pairing(enrollment_id=found.id, user_id=user_id, actor=actor_of(request))


_REDEEMING = (Throttle(Rate("redeem-enrollment", limit=240, seconds=60), by_address),)


class EnrollmentViewSet(ApiViewSet):
    """The endpoints that a host calls before it has a token. The code in the body proves that the host may enroll."""

    tag = "Hosts"
    authentication_classes = ()
    permissions = {"device": IsPublic, "redeem": IsPublic, "key": IsPublic}
    throttles = {
        "device": (Throttle(Rate("begin-pairing", limit=30, seconds=3600), by_address),),
        # A program that waits for approval calls every 5 s, and many hosts may share one IP address.
        "redeem": _REDEEMING,
        "key": _REDEEMING,
    }

    @Operation(
        "POST /enrollments/device",
        id="beginPairing",
        summary="Begin a pairing",
        body=PairingBody,
        example={"label": "build-2"},
        answers={201: serializer_of(issuing.Pairing)},
    )
    def device(self, request: Request, body: Values) -> Any:
        program = request.META.get("HTTP_USER_AGENT")
        return issuing.begin_pairing(
            **body,
            address=address_of(request),
            program="".join(filter(str.isprintable, program))[:255] if program else None,
        )

    @Operation(
        "POST /enrollments/redeem",
        id="redeemEnrollment",
        summary="Redeem an enrollment",
        body=RedeemBody,
        example={"code": "enr_…", "hostname": "build-2", "os": "linux", "version": "0.1.0"},
        answers={201: serializer_of(Redeemed)},
    )
    def redeem(self, request: Request, body: Values) -> Any:
        return redeem(
            code=body.pop("code"),
            device_code=body.pop("device_code"),
            values=body,
            actor=actor_from(request, "api_key"),
        )

    @Operation(
        "POST /enrollments/key",
        id="redeemLogin",
        summary="Redeem the pairing of a command line",
        body=RedeemLoginBody,
        example={"deviceCode": "…"},
        answers={
            201: answer(
                "RedeemedLogin",
                "A key that acts for whoever approved it, and its token, which is shown this once.",
                token=serializers.CharField(),
                apiKey=ApiKeySerializer(),
                environmentId=serializers.UUIDField(),
                environmentName=serializers.CharField(),
                workspaceId=serializers.UUIDField(),
            )
        },
    )
    def key(self, request: Request, body: Values) -> Any:
        minted, environment = redeem_login(
            **body,
            actor=actor_from(request, "api_key"),
        )
        return {
            "token": minted.token,
            "apiKey": minted.key,
            "environmentId": environment.id,
            "environmentName": environment.name,
            "workspaceId": environment.workspace_id,
        }
