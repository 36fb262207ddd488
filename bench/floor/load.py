"""Calls the bare view as often for each lifecycle as the product is called: six times, or four (short protocol)."""

import time
from collections.abc import Sequence

from bench.http_client import Connection, check, request
from bench.lifecycle_load import CALLS, SHORT_CALLS, Measured, keep_running
from bench.load import Window


def drive(port: int, number: int, window: Window) -> Measured:
    """Call the view for row `number` until the window ends."""
    return _touch(port, number, window, CALLS)


def drive_short(port: int, number: int, window: Window) -> Measured:
    """Call the view as `drive` does, as often as the short protocol calls the product."""
    return _touch(port, number, window, SHORT_CALLS)


def _touch(port: int, number: int, window: Window, calls: Sequence[str]) -> Measured:
    sent = request("POST", f"/touch/{number}")

    def touch(connection: Connection) -> dict[str, float]:
        times = {}
        for name in calls:
            began = time.monotonic()
            check(sent, connection.exchange(sent))
            times[name] = time.monotonic() - began
        return times

    return keep_running(port, window, touch)
