"""Writes moments and durations for sentences that people read."""

from datetime import UTC, datetime, timedelta

from pipedai.api.renderers import counted
from pipedai.clocks import zone_of

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def moment_words(moment: datetime, now: datetime, *, to_the_second: bool = False) -> str:
    """Returns a moment in UTC, such as `21:55 UTC`, with a date unless it is today."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    clock = "%H:%M:%S" if to_the_second else "%H:%M"
    day = "" if moment.date() == now.date() else "%Y-%m-%d "
    return f"{moment:{day}{clock}} UTC"


def zoned_words(moment: datetime, timezone: str = "UTC") -> str:
    """Returns a moment in a time zone, with its offset from UTC: `2026-11-24 09:00 UTC+01:00`. It is in UTC if this
    machine does not know the zone any more. No mail program makes a link of it.
    """
    words = moment.astimezone(zone_of(timezone)).isoformat(" ", "minutes")
    return f"{words[:16]} UTC{words[16:].replace('+00:00', '')}"


def duration_words(length: timedelta) -> str:
    """Returns a duration of a second or more in its largest unit and the next one: `2 hours 5 minutes`."""
    left, words = max(1, round(length.total_seconds())), []
    for name, seconds in _UNITS:
        number, left = divmod(left, seconds)
        if number:
            words.append(counted(number, name))
        elif words:
            break
    return " ".join(words[:2])


def due_time_words(moment: datetime, timezone: str) -> str:
    """Returns a due time in UTC and in the zone of its schedule: `2026-11-24 08:00 UTC (09:00 in Europe/Berlin)`."""
    words = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    zone = zone_of(timezone)
    if str(zone) == "UTC":
        return words
    local = moment.astimezone(zone)
    same_day = local.date() == moment.astimezone(UTC).date()
    return f"{words} ({local:{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}} in {timezone})"
