"""Compares this machine's clock with the database's, which decides what is due (SPEC §22), and finds time zones."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

# The difference between the clocks, in seconds, from which on `check_deploy` warns and an alert fires.
TOLERATED_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Skew:
    """By how many `seconds` the database's clock is ahead, and the `uncertainty` of this figure in seconds."""

    seconds: float
    uncertainty: float


def zone_of(name: str) -> tzinfo:
    """Returns the time zone with this name, or UTC if this machine does not know the zone any more."""
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
        """`asked` is the machine's time when the query was sent, `theirs` the database's in the answer. Call it as soon
        as the answer has arrived.
        """
        way = (self.now() - asked).total_seconds() / 2
        self.last = Skew((theirs - asked).total_seconds() - way, way)
        return self.last


# The one meter of this process, which every heartbeat of the process updates.
of_this_process = SkewMeter()
