"""Checks the bodies of requests about connections, and renders connections for the API."""

from rest_framework import serializers

from pipedai.api.fields import NameField, TextField
from pipedai.api.outside_urls import MAX_URL, check_url
from pipedai.api.serializers import RowSerializer, StrictBody
from workspaces.connections.header_field import McpHeadersField
from workspaces.connections.models import Connection
from workspaces.files.columns import KeyField, LabelField


class ConnectionBody(StrictBody):
    key = KeyField()
    managedBy = LabelField()
    name = NameField(max_length=200)
    mcpUrl = TextField(source="mcp_url", max_length=MAX_URL)
    grant = serializers.ChoiceField(source="grant_type", choices=Connection.Grant.choices)
    headers = McpHeadersField(allow_empty=False)

    def validate_mcpUrl(self, value: str) -> str:  # noqa: N802 - DRF finds it by the field's name
        if problem := check_url(value):
            raise serializers.ValidationError(problem)
        if not value.isascii():
            raise serializers.ValidationError("Must be ASCII.")
        return value


class ConnectionSerializer(RowSerializer):
    """A connection, without its headers."""

    id = serializers.UUIDField()
    key = serializers.CharField(allow_null=True)
    managedBy = serializers.CharField(source="managed_by", allow_null=True)
    environmentId = serializers.UUIDField(source="environment_id")
    name = serializers.CharField()
    mcpUrl = serializers.CharField(source="mcp_url")
    grant = serializers.ChoiceField(source="grant_type", choices=Connection.Grant.choices)
    createdAt = serializers.DateTimeField(source="created_at")
    updatedAt = serializers.DateTimeField(source="updated_at")
