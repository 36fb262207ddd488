"""Compares this machine's clock with the database's, which decides what is due, and says which names are time zones."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import tzdata

# The edition of the time zone database, such as `2026f`, that all processes of this version use (pipedai/__init__.py).
EDITION: Final[str] = tzdata.IANA_VERSION
# The time zone database has this zone for clocks that were never set.
_NO_ZONE = "Factory"


class BadTimezone(ValueError):  # noqa: N818
    """The error for a name that is not a time zone."""


def check_timezone(name: str) -> None:
    if name == _NO_ZONE or name not in _zone_names():
        raise BadTimezone("Not a time zone of the IANA database, such as Europe/Berlin.")


_zone_names = lru_cache(maxsize=1)(available_timezones)


# If the clocks differ by this many seconds or more, `check_deploy` warns and an alert fires.
TOLERATED_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Skew:
    """By how many `seconds` the database's clock is ahead, and the `uncertainty` of this figure in seconds."""

    seconds: float
    uncertainty: float


def zone_of(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


def machine_now() -> datetime:
    return datetime.now(UTC)


class SkewMeter:
    def __init__(self, now: Callable[[], datetime] = machine_now) -> None:
        self.now = now
        # The last result, or None before the first comparison.
        self.last: Skew | None = None

    def compare(self, asked: datetime, theirs: datetime) -> Skew:
        """Call this as soon as the database has answered. `asked` is the machine's time when the query was sent, and
        `theirs` the database's time in the answer.
        """
        way = (self.now() - asked).total_seconds() / 2
        self.last = Skew((theirs - asked).total_seconds() - way, way)
        return self.last


# The one meter of this process, which every heartbeat of the process updates.
of_this_process = SkewMeter()
