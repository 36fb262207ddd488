"""Whether this machine's clock is so far from the API's that a person should set it right."""

from __future__ import annotations

TOLERANCE_SECONDS = 60.0


def complaint(ahead: float | None) -> str | None:
    """What is wrong with this machine's clock if the API's is `ahead` by so many seconds."""
    if ahead is None or abs(ahead) <= TOLERANCE_SECONDS:
        return None
    direction = "behind" if ahead > 0 else "ahead of"
    return f"this machine's clock is {abs(ahead):.0f} s {direction} the API's"
