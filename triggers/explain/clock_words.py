"""Writes moments for sentences that people read."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def moment_words(moment: datetime, now: datetime, *, to_the_second: bool = False) -> str:
    """Returns a moment in UTC, such as `21:55 UTC`, with a date unless it is today."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    clock = "%H:%M:%S" if to_the_second else "%H:%M"
    day = "" if moment.date() == now.date() else "%Y-%m-%d "
    return f"{moment:{day}{clock}} UTC"


def due_time_words(moment: datetime, timezone: str) -> str:
    """Returns a due time in UTC and in the zone of its schedule: `2026-11-24 08:00 UTC (09:00 in Europe/Berlin)`."""
    words = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    try:
        local = moment.astimezone(ZoneInfo(timezone))
    except (KeyError, ValueError, OSError):
        return words
    if timezone == "UTC":
        return words
    same_day = local.date() == moment.astimezone(UTC).date()
    return f"{words} ({local:{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}} in {timezone})"
