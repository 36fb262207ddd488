"""Checks the bodies of requests about connections, renders connections for the API, and filters their list."""

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from pipedai.api.fields import ListField, NameField, TextField, UrlField
from pipedai.api.filters import ApiFilterSet, WordFilter
from pipedai.api.outside_urls import MAX_URL
from pipedai.api.serializers import RowSerializer, StrictBody
from workspaces.connections.clients import WORDS, redirect_uri_of
from workspaces.connections.discovery import MOST_SCOPES, SCOPE
from workspaces.connections.header_field import McpHeadersField
from workspaces.connections.models import Connection
from workspaces.files.columns import KeyField, LabelField

_VISIBLE = RegexValidator(rf"^{WORDS.pattern}\Z", "Must be visible ASCII characters and blanks.")


class ConnectionBody(StrictBody):
    key = KeyField()
    managedBy = LabelField()
    name = NameField(max_length=200)
    mcpUrl = UrlField(source="mcp_url")
    grant = serializers.ChoiceField(source="grant_type", choices=Connection.Grant.choices)
    headers = McpHeadersField(allow_empty=False, required=False)
    scopes = ListField(
        child=TextField(
            max_length=200,
            validators=[RegexValidator(rf"^{SCOPE.pattern}\Z", "Must be a scope of OAuth.")],
        ),
        max_length=MOST_SCOPES,
        required=False,
    )
    clientId = TextField(
        source="client_id",
        max_length=MAX_URL,
        allow_null=True,
        required=False,
        validators=[_VISIBLE],
    )
    clientSecret = TextField(
        source="client_secret",
        max_length=2048,
        trim_whitespace=False,
        required=False,
        validators=[_VISIBLE],
    )

    def validate_mcpUrl(self, value: str) -> str:  # noqa: N802 - DRF finds it by the field's name
        if not value.isascii():
            raise serializers.ValidationError("Must be ASCII.")
        return value

    def validate_scopes(self, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))


class ConnectionSerializer(RowSerializer):
    """A connection, without its headers and its secrets."""

    id = serializers.UUIDField()
    key = serializers.CharField(allow_null=True)
    managedBy = serializers.CharField(source="managed_by", allow_null=True)
    environmentId = serializers.UUIDField(source="environment_id")
    name = serializers.CharField()
    mcpUrl = serializers.CharField(source="mcp_url")
    grant = serializers.ChoiceField(source="grant_type", choices=Connection.Grant.choices)
    scopes = serializers.ListField(child=serializers.CharField())
    clientId = serializers.CharField(source="client_id", allow_null=True)
    issuer = serializers.CharField(allow_null=True)
    nextIssuer = serializers.CharField(source="next_issuer", allow_null=True)
    redirectUri = serializers.SerializerMethodField()
    status = serializers.ChoiceField(choices=Connection.Status.choices)
    connectedBy = serializers.UUIDField(source="connected_by_id", allow_null=True)
    connectedAt = serializers.DateTimeField(source="connected_at", allow_null=True)
    accessExpiresAt = serializers.DateTimeField(source="access_expires_at", allow_null=True)
    lastRefreshAt = serializers.DateTimeField(source="last_refresh_at", allow_null=True)
    error = serializers.CharField(allow_null=True)
    createdAt = serializers.DateTimeField(source="created_at")
    updatedAt = serializers.DateTimeField(source="updated_at")

    def get_redirectUri(self, row: Any) -> str | None:  # noqa: N802
        is_code = row["grant_type"] == Connection.Grant.AUTHORIZATION_CODE
        return redirect_uri_of(row["id"]) if is_code else None


class ConnectionFilters(ApiFilterSet):
    status = WordFilter(choices=Connection.Status.choices)
    grant = WordFilter(field_name="grant_type", choices=Connection.Grant.choices)
