"""Defines why a run is stopped before its program has ended, and the request to stop it."""

from __future__ import annotations

import enum
import threading


class StopReason(enum.Enum):
    """Why a run is stopped. The log shows the value."""

    CANCELED = "canceled"
    TIMED_OUT = "time limit reached"
    LOST = "no longer this worker's run"
    SHUTDOWN = "the worker is stopping"
    TOKEN_REFUSED = "the worker's token was refused"  # noqa: S105
    # For these the executor itself decides to stop, and it decides the outcome.
    SILENT = "silent for too long"
    LINGERING = "finished, but did not end"
    NO_SERVER = "not connected to its MCP server"


# For these reasons the worker itself exits, so the program gets less time between SIGTERM and SIGKILL.
HASTY = frozenset({StopReason.SHUTDOWN, StopReason.TOKEN_REFUSED})


class StopRequest:
    """A request to stop a run. Any thread may make it, and the first reason counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reason: StopReason | None = None
        self.hasty = False

    def request(self, reason: StopReason) -> None:
        """Ask for the run to be stopped. A later reason may only shorten the time that the program gets."""
        with self._lock:
            self.hasty = self.hasty or reason in HASTY
            if self.reason is None:
                self.reason = reason
