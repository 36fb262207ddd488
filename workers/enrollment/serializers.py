"""Reads the request bodies of the enrollment endpoints, and renders enrollments in their answers."""

from typing import Any
from uuid import UUID

from rest_framework import serializers

from pipedai.api.fields import IdField, NameField, TextField
from pipedai.api.serializers import Body, NamedSerializer, StrictBody
from workers.models import Enrollment, Worker
from workers.serializers import AccountIdField, AuthModeField
from workspaces.access import environments_with
from workspaces.roles import KEY_ROLES, Role
from workspaces.serializers import PoolIdsField, check_expires_at


class EnrollmentBody(StrictBody):
    label = NameField(max_length=255, allow_null=True, default=None)  # type: ignore[assignment]
    authMode = AuthModeField(choices=Worker.AuthMode.choices, default=Worker.AuthMode.CLAUDE_MAX)
    expiresAt = serializers.DateTimeField(allow_null=True, default=None)
    poolIds = PoolIdsField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_expires_at(attrs["expires_at"], short_lived="A code")
        return attrs


# What asks for a pairing, and the kind of enrollment that it begins.
_PAIRED = {"host": Enrollment.Kind.DEVICE.value, "command_line": Enrollment.Kind.KEY.value}


class PairingBody(Body):
    label = NameField(max_length=255, allow_null=True, default=None)  # type: ignore[assignment]

    def get_fields(self) -> dict[str, Any]:
        # `for` is a word of Python.
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

    label = serializers.CharField(allow_null=True)  # type: ignore[assignment]
    askedFrom = serializers.CharField(allow_null=True)
    askedBy = serializers.CharField(allow_null=True)
    createdAt = serializers.DateTimeField()
    expiresAt = serializers.DateTimeField()
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


class RedeemedSerializer(NamedSerializer):
    """A host's worker and its two tokens, which are shown this once."""

    workerId = serializers.UUIDField()
    workerToken = serializers.CharField()
    operatorToken = serializers.CharField()
    apiUrl = serializers.CharField()
    workspaceId = serializers.UUIDField()
    environmentId = serializers.UUIDField()
    authMode = serializers.ChoiceField(choices=Worker.AuthMode.choices)


class EnrollmentSerializer(NamedSerializer):
    """An enrollment without its code. Only the answer to the call that issues a code shows the code."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Enrollment.Kind.choices)
    label = serializers.CharField(allow_null=True)  # type: ignore[assignment]
    authMode = serializers.ChoiceField(choices=Worker.AuthMode.choices)
    lastFour = serializers.SerializerMethodField()
    createdBy = serializers.UUIDField(source="decided_by_id", allow_null=True)
    createdAt = serializers.DateTimeField()
    expiresAt = serializers.DateTimeField()
    poolIds = serializers.SerializerMethodField()
    revokedAt = serializers.DateTimeField(allow_null=True)
    consumedAt = serializers.DateTimeField(allow_null=True)
    workerId = serializers.UUIDField(allow_null=True)

    def get_lastFour(self, enrollment: Enrollment) -> str | None:  # noqa: N802
        """The last four characters of the `enr_` code; null for a pairing, whose code is never shown."""
        return enrollment.last_four if enrollment.kind == Enrollment.Kind.CODE else None

    def get_poolIds(self, enrollment: Enrollment) -> list[UUID]:  # noqa: N802
        """The pools that the host's worker joins; empty for a pairing."""
        return enrollment.pool_ids or []


class IssuedEnrollmentSerializer(EnrollmentSerializer):
    """A new enrollment with its code, which is shown this once."""

    code = serializers.CharField()
