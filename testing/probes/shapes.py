"""Values to compare answers with: stand-ins that equal any well-formed id or time, and the bodies of errors."""

import re
from typing import Any

NOT_FOUND = {"error": "Not found", "code": "not_found"}


class _Like:
    """A stand-in that equals every string of a given form."""

    def __init__(self, name: str, pattern: str) -> None:
        self._name, self._pattern = name, re.compile(pattern)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._pattern.fullmatch(other) is not None

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._name}>"


AN_ID = _Like("a UUIDv7", r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
A_TIME = _Like("a time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
A_CURSOR = _Like("a cursor", r"[\w:-]+")


def a_token(prefix: str) -> _Like:
    """Returns a stand-in for any token with this prefix."""
    return _Like(f"a {prefix}_ token", rf"{prefix}_[0-9A-Za-z]{{49}}")


def invalid(fields: dict[str, list[str]] | None = None, *form: str) -> dict[str, Any]:
    """Returns the body of a 400 with exactly these errors."""
    return {
        "error": "Validation failed",
        "code": "validation_failed",
        "details": {"fieldErrors": fields or {}, "formErrors": list(form)},
    }


def page(*items: Any) -> dict[str, Any]:
    """Returns the body of a list that has these items and no further page."""
    return {"items": list(items), "nextCursor": None}
