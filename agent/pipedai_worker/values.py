"""Reads JSON of unknown origin within bounds of size and depth, checks numbers and times, and changes strings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

Change = Callable[[str], str]

# A value takes up to 240 bytes of memory, even one of two characters. So 16 MiB of JSON could take half a gigabyte.
MOST_VALUES = 400_000


class TooManyValues(ValueError):  # noqa: N818 - a state of the text
    """A JSON text may have more than MOST_VALUES values."""


def has_too_many_values(text: str | bytes) -> bool:
    """Tell whether a JSON text may have too many values. Counting commas and brackets needs no parsing."""
    if len(text) <= MOST_VALUES:
        return False
    counts = map(text.count, ",[{") if isinstance(text, str) else map(text.count, b",[{")
    return sum(counts) > MOST_VALUES


def parse(text: str | bytes, **options: Any) -> Any:
    """Parse JSON. Raises ValueError for no JSON, too deep nesting, or too many values (TooManyValues)."""
    if has_too_many_values(text):
        raise TooManyValues
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("The JSON is nested too deep.") from None


def is_deeper(value: Any, levels: int) -> bool:
    """Tell whether JSON has more levels of lists and objects than these. Such JSON would exhaust a recursion."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [each for each in layer if isinstance(each, (list, dict))]
        if not layer:
            return False
        inside = (each.values() if isinstance(each, dict) else each for each in layer)
        layer = [each for members in inside for each in members]
    return True


def refuse_constant(name: str) -> None:
    """Raise ValueError. As `parse_constant` of a parser, it refuses NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is not JSON.")


def with_strings(value: Any, change: Change, change_name: Change | None = None) -> Any:
    """Change all strings by `change`, and names by `change_name` (by default `change`). Raises RecursionError."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [with_strings(item, change, change_name) for item in value]
    if isinstance(value, dict):
        rename = change_name or change
        return {
            rename(name): with_strings(item, change, change_name) for name, item in value.items()
        }
    return value


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


LARGEST_WHOLE = 2**63 - 1


def whole(value: object, largest: int = LARGEST_WHOLE) -> int | None:
    """Return a value of JSON as a whole number from 0 to `largest`; None if it is none."""
    finite = number(value)
    if finite is None or not isinstance(value, (int, float)) or value != int(value):
        return None
    return int(value) if value <= largest else None


def number(value: object) -> float | None:
    """Return a value of JSON as a finite number of 0 or more; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        finite = float(value)
    except OverflowError:
        return None
    return finite if math.isfinite(finite) and finite >= 0 else None


def parse_time(moment: object) -> float | None:
    """Convert a time in the API's format to seconds since 1970. Return None if it is not a time."""
    if not isinstance(moment, str):
        return None
    try:
        return since_1970(datetime.fromisoformat(moment.replace("Z", "+00:00")))
    except ValueError:
        return None


def since_1970(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
