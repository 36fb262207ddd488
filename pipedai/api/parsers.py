"""Parses JSON bodies. Values that PostgreSQL or JavaScript can't hold are answered with 400."""

import json
import math
import re
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.http import HttpRequest
from rest_framework import status
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Overloaded
from pipedai.server.memory_budget import has_room_to_parse

MAX_DEPTH = 64
# How many lists and objects a body may have. Each takes about two hundred bytes of memory, however short it is in the
# body, so a body of 8 MiB of `[],` would take half a gigabyte.
MAX_CONTAINERS = 100_000
_CONTAINER_BYTES = 200
REPLACEMENT = "\ufffd"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class CompressedBody(ApiError):  # noqa: N818 - named as what it answers
    status_code = status.HTTP_415_UNSUPPORTED_MEDIA_TYPE

    def __init__(self) -> None:
        super().__init__("The body must not be compressed.", code=ErrorCode.UNSUPPORTED_MEDIA_TYPE)


def check_encoding(request: Request) -> None:
    """Raises CompressedBody if the request's body is compressed, even if the view does not read the body."""
    codings = request.META.get("HTTP_CONTENT_ENCODING", "").lower().split(",")
    if request.META.get("CONTENT_LENGTH") not in {None, "", "0"} and not {
        coding.strip() for coding in codings
    } <= {"", "identity"}:
        raise CompressedBody


class StrictJSONParser(BaseParser):
    """Parses JSON in UTF-8. Refuses duplicate keys, non-finite numbers, NUL, lone surrogates and a depth over 64."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        # The parser checks the encoding, although the view does too. A throttle that counts by a field of the body may
        # parse the body before the view's check.
        raw = stream.read()
        if parser_context is not None:
            check_encoding(parser_context["request"])
            hold_memory(parser_context["request"], raw)
        return self.storable(self.read(raw))

    def read(self, raw: bytes) -> Any:
        return parse_json(raw)

    def storable(self, value: Any) -> Any:
        check_text(value)
        return value


def count_containers(raw: bytes, most: int = MAX_CONTAINERS) -> int:
    """Returns an upper bound for the number of lists and objects in a JSON text. Brackets in its strings count too,
    since telling them apart would take as long as parsing. Raises ParseError if there are more than `most`.
    """
    count = raw.count(b"{") + raw.count(b"[")
    if count > most:
        raise ParseError(f"The JSON has more than {most:,} lists and objects.")
    return count


def hold_memory(request: Request | HttpRequest, raw: bytes, most: int = MAX_CONTAINERS) -> None:
    """Counts the memory that parsing a body will take against the budget of all requests. Call it before parsing.
    Raises ParseError for too many lists and objects, and Overloaded if the budget has no room.
    """
    if not has_room_to_parse(request, _CONTAINER_BYTES * count_containers(raw, most)):
        raise Overloaded(
            "Too many bytes are under way at this moment: send the request again in a second."
        )


class _TooDeep:
    """Stands for a member of a body that is nested too deep. It is no JSON value, so fields refuse or drop it."""

    def __repr__(self) -> str:
        return "a value that is nested too deep"


TOO_DEEP = _TooDeep()


class OutcomeJSONParser(StrictJSONParser):
    """Parses a worker's outcome. It replaces bad values by U+FFFD or TOO_DEEP, so that no outcome is refused."""

    def read(self, raw: bytes) -> Any:
        value = _load(raw)
        if isinstance(value, dict):
            return {
                name: TOO_DEEP if _is_deeper(member, MAX_DEPTH - 1) else member
                for name, member in value.items()
            }
        return parse_json(raw)

    def storable(self, value: Any) -> Any:
        return replace_unstorable(value)


class EventsJSONParser(OutcomeJSONParser):
    """Parses a worker's events, and replaces bad values as in an outcome, because a worker whose events are refused
    could only send the same ones again. TOO_DEEP replaces the `data` of an event that is nested too deep.
    """

    def read(self, raw: bytes) -> Any:
        value = _load(raw)
        # A body with fewer brackets than MAX_DEPTH can't be too deep, so most bodies need not be searched.
        if raw.count(b"{") + raw.count(b"[") >= MAX_DEPTH:
            _drop_deep_data(value)
            if _is_deeper(value, MAX_DEPTH):
                raise ParseError(_TOO_DEEP)
        # In a JSON text, NUL and lone surrogates can only be escapes such as `\u0000`. Most calls have none, and then
        # the thousands of texts in a call need not be searched.
        return replace_unstorable(value) if b"\\u" in raw else value

    def storable(self, value: Any) -> Any:
        return value


def _drop_deep_data(body: Any) -> None:
    """Replaces by TOO_DEEP the `data` of each event that is nested so deep that the whole body would be refused."""
    events = body.get("events") if isinstance(body, dict) else None
    for event in events if isinstance(events, list) else ():
        # The body, its list of events and the event itself are three levels.
        data = event.get("data") if isinstance(event, dict) else None
        if isinstance(data, dict | list) and _is_deeper(data, MAX_DEPTH - 3):
            event["data"] = TOO_DEEP


def parse_json(raw: bytes) -> Any:
    """Returns the value of a JSON text. Raises ParseError if the text is malformed or holds refused values."""
    value = _load(raw)
    if _is_deeper(value, MAX_DEPTH):
        raise ParseError(_TOO_DEEP)
    return value


def _load(raw: bytes) -> Any:
    count_containers(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ParseError("The body is not valid UTF-8.") from None
    try:
        return json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_float=_finite_float,
            parse_int=_held_int,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise ParseError(f"Malformed JSON at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise ParseError(_TOO_DEEP) from None


_TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} levels deep."


def check_text(value: Any) -> None:
    """Raises ParseError if a string or key contains NUL or a lone surrogate, which PostgreSQL can't hold."""
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise ParseError("The JSON holds a NUL character or a lone surrogate.")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_text(item)
    elif isinstance(value, list):
        for item in value:
            check_text(item)


def replace_unstorable(value: Any) -> Any:
    """Returns the value with every NUL and lone surrogate replaced by U+FFFD."""
    if isinstance(value, str):
        return _UNSTORABLE.sub(REPLACEMENT, value)
    if isinstance(value, dict):
        return {replace_unstorable(key): replace_unstorable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_unstorable(item) for item in value]
    return value


def _is_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are nested more than `most` levels deep. An empty list counts as one level."""
    level = [value]
    for _ in range(most + 1):
        level = [container for container in level if isinstance(container, dict | list)]
        if not level:
            return False
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return True


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ParseError("The JSON has an object with a duplicate key.")
    return members


def _finite_float(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ParseError("The JSON holds a number that is too large.")
    return number


def _held_int(literal: str) -> int:
    # The largest JavaScript number has 309 digits. This limit also bounds the time of int(), which is quadratic in the
    # digits.
    if len(literal) > 309 or not math.isfinite(float(literal)):
        raise ParseError("The JSON holds a number that is too large.")
    return int(literal)


def _refuse_constant(name: str) -> NoReturn:
    raise ParseError(f"The JSON holds {name}, which is not a JSON value.")
