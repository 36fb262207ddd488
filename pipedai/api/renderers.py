"""Renders answers as JSON, with times in ISO 8601 UTC with milliseconds and `Z`."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.renderers import JSONRenderer as DRFJSONRenderer
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder as DRFJSONEncoder

# An audit row shows at most this many characters of a changed text.
_LONGEST_SHOWN = 200


def counted(number: int, singular: str) -> str:
    """Returns the number with its noun, such as `1 trigger`, `2 triggers` or `2 deliveries`."""
    if number == 1:
        return f"{number} {singular}"
    if singular.endswith("y") and singular[-2] not in "aeiou":
        return f"{number} {singular[:-1]}ies"
    return f"{number} {singular}s"


def api_name(attribute: str) -> str:
    first, *others = attribute.split("_")
    return first + "".join(word.capitalize() for word in others)


@cache
def attribute_name(name: str) -> str:
    """Returns the Python name of a field, such as `max_turns` for `maxTurns`. It is the reverse of `api_name`."""
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)


def cut(text: str) -> str:
    """Returns the text as the audit log shows it: a long one is cut, and ends in an ellipsis."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


class ContentNegotiation(DefaultContentNegotiation):
    """DRF's choice of a renderer, without parsing the Accept headers that nearly all clients send."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        # Most clients accept anything or name JSON, so a comparison of strings replaces the parsing of the header.
        # See docs/decisions/fast-paths.md.
        first = next(iter(renderers))
        if request.META.get("HTTP_ACCEPT", "*/*") in {"*/*", first.media_type}:
            return first, first.media_type
        chosen: tuple[BaseRenderer, str] = super().select_renderer(
            request, renderers, format_suffix
        )
        return chosen


def iso_time(moment: datetime) -> str:
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"


def money(amount: Decimal) -> str:
    """Returns an amount in the API's form, a decimal string without exponent and trailing zeros: `"0.012"`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(amount: Decimal | str) -> str:
    """Returns an amount of US dollars as people read it, with cents: `$1,234.50`."""
    usd = Decimal(amount)
    return "under $0.01" if 0 < usd < Decimal("0.01") else f"${usd:,.2f}"


class JSONEncoder(DRFJSONEncoder):
    """Encodes the Python types that rows hold and that JSON lacks, such as times and UUIDs."""

    def default(self, obj: Any) -> Any:
        if isinstance(obj, UUID):
            return str(obj)
        if isinstance(obj, datetime):
            return iso_time(obj)
        if isinstance(obj, Decimal):
            return money(obj)
        return super().default(obj)


_ENCODER = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def compact_json(value: Any) -> str:
    """Returns the shortest JSON. The limits of payloads, schemas and outputs count its bytes in UTF-8."""
    return _ENCODER.encode(value)


def for_audit(value: Any) -> Any:
    """Returns a value as the audit log has it: a long text or object is cut."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return money(value)
    if isinstance(value, datetime):
        return iso_time(value)
    if isinstance(value, dict | list) and cut(text := compact_json(value)) != text:
        return cut(text)
    return cut(value) if isinstance(value, str) else value


class JSONRenderer(DRFJSONRenderer):
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
