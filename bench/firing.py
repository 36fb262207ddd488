"""`bin/bench firing`: measures how late due triggers become queued runs, when one is due and when all are (SPEC §7)."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from bench.background import scheduler_processes
from bench.failure import BenchFailed
from bench.figures import Json, latencies, machine, print_machine, print_table
from bench.stack import Database, database

_LOOK_SECONDS = 0.02
_LONGEST_SECONDS = 60.0
# The least time between making the triggers due and the minute at which they are due.
_HEAD_START = timedelta(seconds=10)


def run(*, triggers: int, schedulers: int, say: Callable[[str], None]) -> Json:
    """Measure with this number of scheduled triggers and scheduler processes. Raises BenchFailed."""
    say("Starting PostgreSQL…")
    with database() as on:
        found = machine(on.one("SHOW server_version")["server_version"])
        say(f"Making {triggers} triggers…")
        on.python("-m", "testing.world.due_triggers", str(triggers))
        on.settle()
        with scheduler_processes(on, schedulers):
            say("One sixtieth of them comes due…")
            spread = _fire(on, "schedule = '{minute} * * * *'")
            say("All come due at once…")
            on.execute("UPDATE trigger SET schedule = '* * * * *' WHERE schedule IS NOT NULL")
            on.settle()
            at_once = _fire(on, "schedule IS NOT NULL")
    return {
        "benchmark": "firing",
        "machine": found,
        "triggers": triggers,
        "schedulers": schedulers,
        "lag": {"spreadOverTheHour": spread, "allAtOnce": at_once},
    }


def show(result: Json) -> None:
    """Print the table of a result."""
    print_machine(result["machine"])
    print(f"{result['triggers']} triggers, {result['schedulers']} scheduler processes")
    print()
    print_table(
        ["lag until the run can be seen", "count", "p50 ms", "p99 ms"],
        [
            [name, at["count"], at["p50Ms"], at["p99Ms"]]
            for name, at in (
                ("spread over an hour's minutes", result["lag"]["spreadOverTheHour"]),
                ("all at once", result["lag"]["allAtOnce"]),
            )
        ],
    )


def _fire(on: Database, which: str) -> Json:
    """Make the triggers of a condition due at the next minute, and measure when their runs are queued."""
    now: datetime = on.one("SELECT clock_timestamp() AS now")["now"]
    due = (now + _HEAD_START + timedelta(minutes=1)).replace(second=0, microsecond=0)
    where = which.format(minute=due.minute)
    on.execute(f"UPDATE trigger SET next_run_at = '{due.isoformat()}' WHERE {where}")
    expected = on.one(f"SELECT count(*) FROM trigger WHERE next_run_at = '{due.isoformat()}'")[
        "count"
    ]
    lags: list[float] = []
    time.sleep(max(0.0, (due - now).total_seconds() - 0.5))
    look = f"SELECT count(*), clock_timestamp() AS now FROM run WHERE scheduled_for = '{due.isoformat()}'"
    while len(lags) < expected:
        seen = on.one(look)
        lag = (seen["now"] - due).total_seconds()
        # The runs that are new since the last look are at most as late as this look.
        lags += [lag] * (seen["count"] - len(lags))
        if lag > _LONGEST_SECONDS:
            raise BenchFailed(f"Only {len(lags)} of {expected} triggers have fired.")
        time.sleep(_LOOK_SECONDS)
    return latencies(lags)
