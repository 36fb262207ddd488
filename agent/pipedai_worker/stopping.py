"""Why a run is to be stopped before its program has ended by itself."""

from __future__ import annotations

import enum
import threading


class StopReason(enum.Enum):
    """The value is what the log says."""

    CANCELED = "canceled"
    TIMED_OUT = "time limit reached"
    LOST = "no longer this worker's run"
    SHUTDOWN = "the worker is stopping"
    TOKEN_REFUSED = "the worker's token was refused"  # noqa: S105
    # Of an executor's own accord: the outcome is what the executor says.
    SILENT = "silent for too long"
    LINGERING = "finished, but did not end"


# The worker itself is going: the program gets less time to end in.
HASTY = frozenset({StopReason.SHUTDOWN, StopReason.TOKEN_REFUSED})


class StopRequest:
    """Set once, by any thread: the first reason stands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reason: StopReason | None = None
        self.hasty = False

    def request(self, reason: StopReason) -> None:
        """Have the run stopped; a later reason changes nothing but the haste."""
        with self._lock:
            self.hasty = self.hasty or reason in HASTY
            if self.reason is None:
                self.reason = reason
