"""Compares this machine's clock with the database's, which decides what is due (SPEC §22)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

# From this difference on, `check_deploy` warns and an alert fires.
TOLERATED_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Skew:
    """How far the database's clock is ahead of this machine's, and by how much that may be wrong, both in seconds."""

    seconds: float
    uncertainty: float


def machine_now() -> datetime:
    """Returns the time on this machine's clock."""
    return datetime.now(UTC)


class SkewMeter:
    """Remembers the last comparison of a process. `now` returns the time on the machine's clock."""

    def __init__(self, now: Callable[[], datetime] = machine_now) -> None:
        self.now = now
        # None: nothing was compared yet.
        self.last: Skew | None = None

    def compare(self, asked: datetime, theirs: datetime) -> Skew:
        """Compares, when the database has just answered a question that was asked at `asked` with its time."""
        way = (self.now() - asked).total_seconds() / 2
        self.last = Skew((theirs - asked).total_seconds() - way, way)
        return self.last


# The comparison that this process makes at each of its heartbeats.
of_this_process = SkewMeter()
