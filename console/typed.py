"""Turns values of the API's JSON into what inputs of HTML hold, and what people type there into JSON."""

import json
from typing import Any

from rest_framework.exceptions import ParseError

from pipedai.api.parsers import parse_json


def text_of(value: Any, kind: str) -> Any:
    """Returns the value as an input of HTML holds it."""
    if value is None or value == []:
        return ""
    if kind == "json" or (kind == "clauses" and isinstance(value, list)):
        return json.dumps(value, indent=2)
    if kind == "time":
        # The browser's field for a time takes no seconds and no zone.
        return value[:16]
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return str(value)


def value_of(kind: str, text: str) -> Any:
    """Returns the JSON value that somebody typed. Raises ValueError with what to say at the field."""
    if kind == "number":
        # A text that is no number goes to the API as it is, which says what it wants instead. So does one that is too
        # long for int().
        is_number = len(text) < 100 and text.strip().removeprefix("-").isdecimal()
        return int(text) if is_number else text
    if kind == "clauses" and not text.lstrip().startswith("["):
        return text.strip()
    if kind in {"json", "clauses"}:
        try:
            return parse_json(text.encode())
        except ParseError as error:
            raise ValueError(str(error.detail)) from None
    if kind == "headers":
        return _headers(text)
    if kind == "secrets":
        return [line for line in text.split("\n") if line.strip()]
    if kind == "names":
        names = [line.strip() for line in text.split("\n") if line.strip()]
        return "*" if "*" in names else names
    # The browser's field for a time knows no zone; its label says that the time is in UTC.
    return f"{text}Z" if kind == "time" else text


def _headers(text: str) -> dict[str, str]:
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not all(colon for _, colon, _ in pairs):
        raise ValueError("Write each header on a line of its own, as in Authorization: Bearer …")
    return {name.strip(): value.strip() for name, _, value in pairs}
