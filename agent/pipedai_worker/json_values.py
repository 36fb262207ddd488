"""Parses JSON that others have written, within bounds, and changes the strings inside JSON values."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Change = Callable[[str], str]

# A value takes up to 240 bytes of memory besides the text of its strings, even if it has only two characters in the
# text. So 16 MiB of JSON could take half a gigabyte.
MOST_VALUES = 400_000


class TooManyValues(ValueError):  # noqa: N818 - a state of the text
    """A JSON text may have more than MOST_VALUES values."""


def has_too_many_values(text: str | bytes) -> bool:
    """Tell whether a JSON text may have more than MOST_VALUES values.

    Each value but the first stands after a comma or a bracket. Those inside strings are counted too, because counting
    is cheap only as long as nothing is parsed.
    """
    if len(text) <= MOST_VALUES:
        return False
    if isinstance(text, str):
        return sum(map(text.count, ",[{")) > MOST_VALUES
    return sum(map(text.count, b",[{")) > MOST_VALUES


def parse(text: str | bytes, **options: Any) -> Any:
    """Return the value of a JSON text, as `json.loads` does with these options.

    Raises ValueError if the text is no JSON, is nested too deep, or has too many values (TooManyValues).
    """
    if has_too_many_values(text):
        raise TooManyValues
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("The JSON is nested too deep.") from None


def with_strings(value: Any, change: Change, change_name: Change | None = None) -> Any:
    """Return the JSON value with `change` applied to each of its strings.

    The names in objects are changed by `change_name`, or by `change` too if that is None. Raises RecursionError if the
    value is nested too deep.
    """
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
