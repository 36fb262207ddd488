"""Knows which reports of a usage limit the real API accepts, so that the fake API notices all others."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

LONGEST_KIND = 64
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def flaw(body: dict[str, Any]) -> str | None:
    """Return a sentence on what is wrong with the usage limit in a report; None if nothing is.

    A report may leave `usageLimit` out or have null in its place.
    """
    limit = body.get("usageLimit")
    if limit is None:
        return None
    if (body.get("status"), body.get("faultClass")) != ("failed", "infra"):
        return "usageLimit counts only with the status failed and the faultClass infra"
    if not isinstance(limit, dict):
        return "usageLimit is no object"
    if resets_at(limit) is None:
        return "usageLimit.resetsAt is no time with its offset from UTC"
    kind = limit.get("kind")
    if kind is not None and not (
        isinstance(kind, str) and len(kind) <= LONGEST_KIND and kind.isprintable()
    ):
        return f"usageLimit.kind is no text of at most {LONGEST_KIND} characters"
    return None


def resets_at(limit: dict[str, Any]) -> datetime | None:
    """Return when a usage limit ends that a report tells; None if it does not tell that in the API's form."""
    told = limit.get("resetsAt")
    if not isinstance(told, str) or (match := _TIME.fullmatch(told)) is None:
        return None
    # Python 3.9 reads neither `Z` nor fractions of any length.
    offset = "+00:00" if match[2] == "Z" else match[2]
    try:
        return datetime.fromisoformat(f"{told[:19]}{offset}")
    except ValueError:
        return None
