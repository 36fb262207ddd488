"""Renders answers as JSON, with times in ISO 8601 UTC with milliseconds and `Z` (SPEC §2)."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from rest_framework.renderers import JSONRenderer as DRFJSONRenderer
from rest_framework.utils.encoders import JSONEncoder as DRFJSONEncoder


def iso_time(moment: datetime) -> str:
    """Returns a time in the API's form: `2026-11-24T15:29:30.123Z`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"


def money(amount: Decimal) -> str:
    """Returns an amount in the API's form, a decimal string without exponent and trailing zeros: `"0.012"`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def compact_json(value: Any) -> str:
    """Returns the shortest JSON of a value. The limits of payloads, schemas and outputs count its bytes in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class JSONEncoder(DRFJSONEncoder):
    """Encodes the Python types that rows hold and that JSON lacks, such as times and UUIDs."""

    def default(self, obj: Any) -> Any:
        """Returns the JSON value for a type that JSON lacks."""
        if isinstance(obj, UUID):
            return str(obj)
        if isinstance(obj, datetime):
            return iso_time(obj)
        if isinstance(obj, Decimal):
            return money(obj)
        return super().default(obj)


_ENCODER = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class JSONRenderer(DRFJSONRenderer):
    """The only renderer of the API."""

    encoder_class = JSONEncoder

    # See docs/decisions/fast-paths.md.
    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Returns the value as JSON in UTF-8. A client may ask for indented JSON (`application/json; indent=2`)."""
        if accepted_media_type != self.media_type or data is None:
            rendered: bytes = super().render(data, accepted_media_type, renderer_context)
            return rendered
        try:
            text = orjson.dumps(data, _ENCODER.default, orjson.OPT_PASSTHROUGH_DATETIME)
        except TypeError:  # for example because of an integer of more than 64 bits
            text = _ENCODER.encode(data).encode()
        return text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
