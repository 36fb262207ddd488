"""Compares this machine's clock with the database's, which decides what is due (SPEC §22), and finds time zones."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

# The difference between the clocks, in seconds, from which on `check_deploy` warns and an alert fires.
TOLERATED_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Skew:
    """The difference between the database's clock and this machine's.

    `seconds` is how far the database's clock is ahead, and `uncertainty` by how many seconds this figure may be wrong.
    """

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
    """Compares the machine's clock with the database's, and remembers the result. `now` returns the machine's time."""

    def __init__(self, now: Callable[[], datetime] = machine_now) -> None:
        self.now = now
        # The last result, or None before the first comparison.
        self.last: Skew | None = None

    def compare(self, asked: datetime, theirs: datetime) -> Skew:
        """Returns how far the database's clock is ahead of the machine's.

        `asked` is the machine's time when a query was sent, and `theirs` the database's time in its answer. Call this
        method as soon as the answer has arrived, because the time in between counts as the query's duration.
        """
        way = (self.now() - asked).total_seconds() / 2
        self.last = Skew((theirs - asked).total_seconds() - way, way)
        return self.last


# The one meter of this process, which every heartbeat of the process updates.
of_this_process = SkewMeter()
