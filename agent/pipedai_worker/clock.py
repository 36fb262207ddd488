"""Tells a person to set this machine's clock when it differs too much from the API's."""

from __future__ import annotations

TOLERANCE_SECONDS = 60.0


def complaint(ahead: float | None) -> str | None:
    """Return a sentence about this machine's clock if the API's clock is `ahead` by more than a minute either way.

    `ahead` is in seconds, and negative if the API's clock is behind. Return None when the two differ by a minute at
    most, or when `ahead` is None because the difference is not known.
    """
    if ahead is None or abs(ahead) <= TOLERANCE_SECONDS:
        return None
    direction = "behind" if ahead > 0 else "ahead of"
    return f"this machine's clock is {abs(ahead):.0f} s {direction} the API's"
