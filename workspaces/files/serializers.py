"""Reads the bodies of plan and apply, and renders what they change."""

from typing import Any

from rest_framework import serializers
from rest_framework.fields import empty

from pipedai.api.fields import ListField, NameField, TextField, TrueFalseField, UrlField
from pipedai.api.outside_urls import origin_of
from pipedai.api.serializers import StrictBody
from workspaces.tenant_columns import MAX_LABEL

MAX_RESOURCES = 500
_MAX_SECRETS = 500
_MAX_ORIGINS = 100
# The longest value of a secret. If the field is not a text, such as headers, the value is the JSON of the field.
_MAX_SECRET = 16 * 1024
_DIGEST = 64


class OriginField(UrlField):
    """The origin of a URL, such as `https://mcp.example`."""

    def run_validation(self, data: Any = empty) -> str:
        return origin_of(super().run_validation(data) or "")


class SecretsField(serializers.DictField):
    """The values of secrets by their names."""

    child = TextField(max_length=_MAX_SECRET, trim_whitespace=False)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if isinstance(data, dict) and len(data) > _MAX_SECRETS:
            raise serializers.ValidationError(f"At most {_MAX_SECRETS}.")
        values: dict[str, str] = super().to_internal_value(data)
        return values


class PlanBody(StrictBody):
    managedBy = NameField(max_length=MAX_LABEL)
    resources = ListField(child=serializers.DictField(), max_length=MAX_RESOURCES)
    secrets = SecretsField(default={})
    acceptOrigins = ListField(child=OriginField(), max_length=_MAX_ORIGINS, default=[])


class ApplyBody(PlanBody):
    digest = TextField(min_length=_DIGEST, max_length=_DIGEST)
    prune = TrueFalseField(default=False)


class ChangeSerializer(serializers.Serializer[Any]):
    """What becomes of one row. `diff` has the old and the new value of each field that changes."""

    kind = serializers.CharField()
    key = serializers.CharField()
    action = serializers.ChoiceField(choices=["create", "update", "delete", "none"])
    diff = serializers.DictField(
        child=serializers.ListField(child=serializers.JSONField(), min_length=2, max_length=2)
    )
    warnings = serializers.ListField(child=serializers.CharField())
    nextDueAt = serializers.ListField(child=serializers.DateTimeField(), required=False)


class UnkeyedSerializer(serializers.Serializer[Any]):
    """A row that has no key, so that no resource can stand for it."""

    kind = serializers.CharField()
    id = serializers.UUIDField()
    name = serializers.CharField()
