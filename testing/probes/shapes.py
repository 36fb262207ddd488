"""What answers look like: stand-ins that equal any well-formed id or time, and the bodies of errors."""

import re
from typing import Any

NOT_FOUND = {"error": "Not found"}


class _Like:
    """Equals every string of a form."""

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
    """Any token of a kind."""
    return _Like(f"a {prefix}_ token", rf"{prefix}_[0-9A-Za-z]{{49}}")


def invalid(fields: dict[str, list[str]] | None = None, *form: str) -> dict[str, Any]:
    """The body of a 400 with these errors and no others."""
    return {
        "error": "Validation failed",
        "details": {"fieldErrors": fields or {}, "formErrors": list(form)},
    }


def page(*items: Any) -> dict[str, Any]:
    """The body of a list's only page."""
    return {"items": list(items), "nextCursor": None}
