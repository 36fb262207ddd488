"""Checks the bodies of requests about connections with their headers, renders connections, and filters their list."""

import re
from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import ListField, TextField, UrlField
from pipedai.api.filters import ApiFilterSet, WordFilter
from pipedai.api.outside_urls import MAX_URL
from pipedai.api.serializers import RowSerializer
from workspaces.connections.models import MAX_HEADERS_BYTES, Connection
from workspaces.connections.servers import MOST_SCOPES, SCOPE, WORDS, redirect_uri_of
from workspaces.serializers import FileBody

_VISIBLE = RegexValidator(rf"^{WORDS.pattern}\Z", "Must be visible ASCII characters and blanks.")
# The name of a header is a token (RFC 9110 §5.1). Its value may have visible ASCII characters, and spaces or tabs
# between them.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?", re.ASCII)
_RESERVED_HEADERS = frozenset({"host", "content-length", "connection", "transfer-encoding"})


@extend_schema_field(
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{_HEADER_NAME.pattern}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{_HEADER_VALUE.pattern}$"},
    },
    component_name="McpHeaders",
)
class McpHeadersField(serializers.Field[Any, Any, Any, Any]):
    """The headers of an MCP server. With `takes_away` the value of a header may be null, which removes it."""

    def __init__(
        self, *, allow_empty: bool = True, takes_away: bool = False, **kwargs: Any
    ) -> None:
        self._allow_empty, self._takes_away = allow_empty, takes_away
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """An error message does not repeat a bad name, because it may be a misplaced secret."""
        if not isinstance(data, dict):
            raise serializers.ValidationError("Must be an object of header names and values.")
        if not data and not self._allow_empty:
            raise serializers.ValidationError("Must hold at least one header.")
        for name in data:
            _check_header_name(name)
        size = sum(len(name) + len(value) for name, value in data.items() if isinstance(value, str))
        if max(size, len(data)) > MAX_HEADERS_BYTES:
            raise serializers.ValidationError("Must not be longer than 8 KiB in all.")
        if len({name.lower() for name in data}) != len(data):
            raise serializers.ValidationError("Two names are alike but for case.")
        errors = {
            name: ["Must be a string that is a valid header value."]
            for name, value in data.items()
            if not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value))
            and not (value is None and self._takes_away)
        }
        if errors:
            raise serializers.ValidationError(errors)
        return data

    def to_representation(self, value: Any) -> Any:
        raise NotImplementedError


def _check_header_name(name: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise serializers.ValidationError("One of the names is not a valid header name.")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith("proxy-"):
        raise serializers.ValidationError(f"{name} may not be set.")


class ConnectionBody(FileBody):
    mcpUrl = UrlField()
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
        max_length=MAX_URL,
        allow_null=True,
        required=False,
        validators=[_VISIBLE],
    )
    clientSecret = TextField(
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

    of = Connection
    shows = (
        "id key managedBy environmentId name mcpUrl grant scopes clientId issuer nextIssuer"
        " redirectUri status connectedBy connectedAt accessExpiresAt lastRefreshAt error createdAt"
        " updatedAt"
    )
    grant = serializers.ChoiceField(source="grant_type", choices=Connection.Grant.choices)
    redirectUri = serializers.SerializerMethodField()
    connectedBy = serializers.UUIDField(source="connected_by_id", allow_null=True)

    def get_redirectUri(self, row: Any) -> str | None:  # noqa: N802
        is_code = row["grant_type"] == Connection.Grant.AUTHORIZATION_CODE
        return redirect_uri_of(row["id"]) if is_code else None


class ConnectionFilters(ApiFilterSet):
    status = WordFilter(choices=Connection.Status.choices)
    grant = WordFilter(field_name="grant_type", choices=Connection.Grant.choices)
