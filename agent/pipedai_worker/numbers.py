"""Checks numbers in JSON that others wrote, and accepts only those in a plausible range."""

from __future__ import annotations

import math

LARGEST_WHOLE = 2**63 - 1


def whole(value: object, largest: int = LARGEST_WHOLE) -> int | None:
    """Return `value` if it is a whole number from 0 to `largest`, else None."""
    finite = number(value)
    if finite is None or not isinstance(value, (int, float)) or value != int(value):
        return None
    return int(value) if value <= largest else None


def number(value: object) -> float | None:
    """Return `value` if it is a finite number of 0 or more, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        finite = float(value)
    except OverflowError:
        return None
    return finite if math.isfinite(finite) and finite >= 0 else None
