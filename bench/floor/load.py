"""Calls the bare view six times for each lifecycle, which has six calls in the product."""

import time

from bench.http_client import Connection, check, request
from bench.lifecycle_load import CALLS, Measured, keep_running
from bench.load import Window


def drive(port: int, number: int, window: Window) -> Measured:
    """Call the view for row `number` until the window ends."""
    sent = request("POST", f"/touch/{number}")

    def touch(connection: Connection) -> dict[str, float]:
        times = {}
        for name in CALLS:
            began = time.monotonic()
            check(sent, connection.exchange(sent))
            times[name] = time.monotonic() - began
        return times

    return keep_running(port, window, touch)
