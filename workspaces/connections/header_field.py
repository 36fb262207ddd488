"""Checks the headers that people give for an MCP server (SPEC §5)."""

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

MAX_HEADERS_BYTES = 8 * 1024

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
    def __init__(self, *, allow_empty: bool = True, **kwargs: Any) -> None:
        self._allow_empty = allow_empty
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
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value)
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
