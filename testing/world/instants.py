"""The instants at which sums by day, week or month go wrong, if they ever do.

Whatever makes up or adds up rows by day, week or month takes `now`, and is tested at each of them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# They are in years that are over, so that no rule of a time zone changes any more.
INSTANTS: Final[Mapping[str, datetime]] = {
    "the first minute of a month": _utc("2025-12-01 00:00:30"),
    "the last minute of a month": _utc("2025-05-31 23:59:30"),
    "the last minute of February": _utc("2025-02-28 23:59:30"),
    "29 February": _utc("2024-02-29 12:00:00"),
    "the minute before New Year": _utc("2024-12-31 23:59:30"),
    "the minute after New Year": _utc("2025-01-01 00:00:30"),
    "before Europe's clocks go forward": _utc("2025-03-30 00:59:30"),
    "after Europe's clocks went forward": _utc("2025-03-30 01:00:30"),
    "before Europe's clocks go back": _utc("2025-10-26 00:59:30"),
    "after Europe's clocks went back": _utc("2025-10-26 01:00:30"),
    "before New York's clocks go forward": _utc("2025-03-09 06:59:30"),
    "after New York's clocks went forward": _utc("2025-03-09 07:00:30"),
    "before New York's clocks go back": _utc("2025-11-02 05:59:30"),
    "after New York's clocks went back": _utc("2025-11-02 06:00:30"),
    "Monday at midnight": _utc("2025-06-02 00:00:00"),
    "Sunday at midnight": _utc("2025-06-01 00:00:00"),
}

# Zones whose clocks change at midnight, back over midnight or by half an hour, and those furthest from UTC.
ZONES: Final = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Beirut",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
)
