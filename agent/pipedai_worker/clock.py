"""Tells when this machine's clock differs so much from the API's that a person should set it."""

from __future__ import annotations

TOLERANCE_SECONDS = 60.0


def complaint(ahead: float | None) -> str | None:
    """Describe how wrong this machine's clock is, given that the API's is `ahead` by so many seconds.

    Returns None when the two differ by a minute at most, or when the difference is not known.
    """
    if ahead is None or abs(ahead) <= TOLERANCE_SECONDS:
        return None
    direction = "behind" if ahead > 0 else "ahead of"
    return f"this machine's clock is {abs(ahead):.0f} s {direction} the API's"
