"""Runs a scheduler whose clock is fast, so that minutes pass in seconds. Tests may kill it at any time.

    python -m testing.processes.fast_scheduler BEGAN FIRST LAST SPEED

`BEGAN` is the Unix time at which its clock showed `FIRST`. The clock stops at `LAST`.
"""

import sys
import time
from datetime import datetime, timedelta

import django


def main(began: float, first: datetime, last: datetime, speed: float) -> None:
    """Fires the due triggers until it is killed."""
    from triggers.schedules.firing import fire_due_ticks

    while True:
        now = min(first + timedelta(seconds=(time.time() - began) * speed), last)
        if not fire_due_ticks(now=now, limit=100):
            time.sleep(0.02)


if __name__ == "__main__":
    django.setup()
    main(
        float(sys.argv[1]),
        datetime.fromisoformat(sys.argv[2]),
        datetime.fromisoformat(sys.argv[3]),
        float(sys.argv[4]),
    )
