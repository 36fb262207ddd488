"""The metric of the difference between a process's clock and the database's."""

from prometheus_client import Gauge

from pipedai.clocks import of_this_process


def clock_gauge() -> Gauge:
    """Returns the gauge of the difference between the process's clock and the database's. Call it once in a process.

    The caller sets the gauge to `skew_of_this_process()`, or makes the gauge call that function.
    """
    return Gauge(
        "pipedai_clock_skew_seconds",
        "How far the database's clock is ahead of the process's, measured at its last heartbeat.",
        multiprocess_mode="liveall",
    )


def skew_of_this_process() -> float:
    """Returns the seconds by which the database's clock is ahead of this process's; 0 before the first heartbeat."""
    return of_this_process.last.seconds if of_this_process.last else 0.0
