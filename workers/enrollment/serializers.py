"""Bodies of the enrollment endpoints, and enrollments as they go out."""

from typing import Any

from rest_framework import serializers

from pipedai.api.fields import NameField, TextField
from pipedai.api.serializers import Body, StrictBody
from workers.models import Enrollment, Worker
from workers.serializers import AuthModeField
from workspaces.serializers import check_expires_at


class EnrollmentBody(StrictBody):
    """POST /environments/:envId/enrollments."""

    label = NameField(max_length=255, required=False, allow_null=True, default=None)  # type: ignore[assignment]
    authMode = AuthModeField(
        source="auth_mode", choices=Worker.AuthMode.choices, default=Worker.AuthMode.CLAUDE_MAX
    )
    expiresAt = serializers.DateTimeField(
        source="expires_at", required=False, allow_null=True, default=None
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """It lives at most 30 days, and does not expire in the past."""
        check_expires_at(attrs["expires_at"], short_lived="A code")
        return attrs


class PairingBody(Body):
    """POST /enrollments/device."""

    label = NameField(max_length=255, required=False, allow_null=True, default=None)  # type: ignore[assignment]


class RedeemBody(Body):
    """POST /enrollments/redeem."""

    code = TextField(max_length=255, required=False, default=None)
    deviceCode = TextField(source="device_code", max_length=255, required=False, default=None)
    hostname = NameField(max_length=255)
    os = NameField(max_length=255)
    version = NameField(max_length=64)
    label = NameField(max_length=255, required=False, allow_null=True, default=None)  # type: ignore[assignment]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Exactly one of `code` and `deviceCode`."""
        if (attrs["code"] is None) == (attrs["device_code"] is None):
            raise serializers.ValidationError("Send either code or deviceCode.")
        return attrs


class EnrollmentSerializer(serializers.Serializer[Any]):
    """An enrollment; its code is shown once, by the view that issues it."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Enrollment.Kind.choices)
    label = serializers.CharField(allow_null=True)  # type: ignore[assignment]
    authMode = serializers.ChoiceField(source="auth_mode", choices=Worker.AuthMode.choices)
    lastFour = serializers.SerializerMethodField()
    createdBy = serializers.UUIDField(source="decided_by_id", allow_null=True)
    createdAt = serializers.DateTimeField(source="created_at")
    expiresAt = serializers.DateTimeField(source="expires_at")
    revokedAt = serializers.DateTimeField(source="revoked_at", allow_null=True)
    consumedAt = serializers.DateTimeField(source="consumed_at", allow_null=True)
    workerId = serializers.UUIDField(source="worker_id", allow_null=True)

    def get_lastFour(self, enrollment: Enrollment) -> str | None:  # noqa: N802
        """Of an `enr_` code; a device code is never shown."""
        return enrollment.last_four if enrollment.kind == Enrollment.Kind.CODE else None


class IssuedEnrollmentSerializer(EnrollmentSerializer):
    """A new enrollment with its code, which is shown this once."""

    code = serializers.CharField()
