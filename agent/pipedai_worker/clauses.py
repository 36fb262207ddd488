"""Decides whether clauses hold for a JSON document, both in workers and in the service. The service checks new clauses.

A value is compared only with values of its own JSON type: 1 equals 1.0, but neither `true` nor `"1"`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
MISSING: Any = object()


def all_hold(clauses: Iterable[Mapping[str, Any]], document: Any) -> bool:
    """Tell whether all clauses hold for the document. Raises KeyError for an unknown operation."""
    return all(
        holds(clause["op"], find(document, clause["path"]), clause["value"]) for clause in clauses
    )


def find(document: Any, path: str) -> Any:
    """Return the value to which the JSON Pointer leads (RFC 6901), or MISSING."""
    value = document
    for escaped in path.split("/")[1:]:
        token = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(token, MISSING)
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            return MISSING
    return value


def holds(op: str, seen: Any, value: Any) -> bool:
    if op == "exists":
        return (seen is not MISSING) is value
    test = TESTS[op]
    return seen is not MISSING and test(seen, value)


def _is_like(seen: Any, value: Any) -> bool:
    """Tell whether both have one JSON type. In Python a boolean is a number, in JSON it is not."""
    if isinstance(seen, bool) or isinstance(value, bool):
        return isinstance(seen, bool) and isinstance(value, bool)
    if isinstance(seen, (int, float)):
        return isinstance(value, (int, float))
    return type(seen) is type(value)


def _equals(seen: Any, value: Any) -> bool:
    return bool(_is_like(seen, value) and seen == value)


def _differs(seen: Any, value: Any) -> bool:
    """Tell whether a value differs. Every value but null differs from null, which has no other value of its type."""
    if value is None:
        return seen is not None
    return bool(_is_like(seen, value) and seen != value)


def _contains(seen: Any, value: Any) -> bool:
    if isinstance(seen, list):
        return any(_equals(item, value) for item in seen)
    return isinstance(seen, str) and isinstance(value, str) and value in seen


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return a test that compares numbers. It fails for NaN and infinity, which JSON does not have."""
    return lambda seen, value: (
        _is_like(seen, value) and -math.inf < seen < math.inf and compare(seen, value)
    )


TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _equals,
    "ne": _differs,
    "in": lambda seen, values: any(_equals(seen, value) for value in values),
    "contains": _contains,
    "startsWith": lambda seen, value: isinstance(seen, str) and seen.startswith(value),
    "gt": _compared(lambda seen, value: seen > value),
    "gte": _compared(lambda seen, value: seen >= value),
    "lt": _compared(lambda seen, value: seen < value),
    "lte": _compared(lambda seen, value: seen <= value),
}
OPS = frozenset({"exists", *TESTS})
