"""Reads the bodies of the worker endpoints for people, and renders workers."""

from typing import Any, Literal, NoReturn

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import NameField, TextField, TrueFalseField, WholeNumberField
from pipedai.api.serializers import Body, RowSerializer, StrictBody
from workers.models import MAX_CONCURRENCY, Worker
from workspaces.serializers import PoolIdsField


class AuthModeField(serializers.ChoiceField):
    """How the agent pays for the model: `claude_max` or `api_key`. Hyphens instead of underscores are accepted."""

    def to_internal_value(self, data: Any) -> Any:
        return super().to_internal_value(data.replace("-", "_") if isinstance(data, str) else data)


class AccountIdField(TextField):
    """An opaque word for the account that pays for the model: 1 to 64 printable ASCII characters, or null."""

    def __init__(self) -> None:
        super().__init__(max_length=64, required=False, allow_null=True)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not (value.isascii() and value.isprintable()):
            raise serializers.ValidationError("Must be printable ASCII characters.")
        return value

    def to_representation(self, value: Any) -> NoReturn:
        raise NotImplementedError


@extend_schema_field({"type": "null"})
class NullField(serializers.Field[Any, Any, Any, Any]):
    """A field that can only be cleared: every value but null is an error."""

    # DRF's `allow_null` would do the same, but drf-spectacular can't describe a field that allows null alone.
    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        return (True, None) if data is None else super().validate_empty_values(data)

    def to_internal_value(self, data: Any) -> NoReturn:
        raise serializers.ValidationError("Must be null.")


class WorkerBody(StrictBody):
    label = NameField(max_length=255)  # type: ignore[assignment]
    maxConcurrency = WholeNumberField(min_value=1, max_value=MAX_CONCURRENCY)
    disabled = TrueFalseField()
    accountId = AccountIdField()
    limitedUntil = NullField()


class WorkerSerializer(RowSerializer):
    """A worker as the API shows it. `status`, `derivedStatus`, `currentRunId` and `heldRuns` are computed, not
    stored."""

    id = serializers.UUIDField()
    environmentId = serializers.UUIDField()
    workspaceId = serializers.UUIDField()
    label = serializers.CharField()  # type: ignore[assignment]
    hostname = serializers.CharField()
    os = serializers.CharField()
    version = serializers.CharField()
    authMode = serializers.ChoiceField(choices=Worker.AuthMode.choices)
    maxConcurrency = serializers.IntegerField()
    status = serializers.SerializerMethodField()
    derivedStatus = serializers.SerializerMethodField()
    currentRunId = serializers.UUIDField(allow_null=True)
    heldRuns = serializers.IntegerField()
    disabled = serializers.BooleanField()
    approved = serializers.BooleanField()
    limitedUntil = serializers.DateTimeField(source="limit_ends_at", allow_null=True)
    poolIds = serializers.ListField(child=serializers.UUIDField())
    lastSeenAt = serializers.DateTimeField(allow_null=True)
    createdAt = serializers.DateTimeField()

    def get_status(self, worker: dict[str, Any]) -> Literal["online", "offline"]:
        """`online` if the worker polled or sent a heartbeat lately, else `offline`."""
        return "online" if worker["online"] else "offline"

    def get_derivedStatus(  # noqa: N802
        self, worker: dict[str, Any]
    ) -> Literal["disabled", "busy", "online", "offline"]:
        """The first of these that holds: `disabled`, `busy` (the worker has claimed a run that has not ended),
        `online`, `offline`.
        """
        if worker["disabled"]:
            return "disabled"
        return "busy" if worker["current_run_id"] else self.get_status(worker)


class RegistrationTokenBody(Body):
    label = NameField(max_length=200, allow_null=True, default=None)  # type: ignore[assignment]
    poolIds = PoolIdsField()
