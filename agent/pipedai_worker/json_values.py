"""Changes the strings inside JSON values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Change = Callable[[str], str]


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
