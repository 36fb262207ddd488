"""How late scheduled triggers fire: spread over the hour, and all at once; or so many each second.

They come due at whole minutes, by the real clock, so it takes up to three of them.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from bench.figures import Json, latencies, machine, print_table
from bench.options import count
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database, database, scheduler_processes
from testing.processes.usage import cpu_seconds

IN_ALL = ("", "--triggers 100000 --each-second 1000")
_LOOK_SECONDS = 0.02
_LONGEST_SECONDS = 60.0
# The least time between making the triggers due and the minute at which they are due.
_HEAD_START = timedelta(seconds=10)


# The last of the triggers that come due each second have fired by then, or the benchmark fails.
_LONGEST_AFTER = 30.0
_STEADY_LOOK_SECONDS = 0.1
# A tick that is older than SCHEDULE_CATCHUP_SECONDS, an hour, makes no run.
_MOST_SECONDS = 55

# Divides triggers into groups, one for each second.
_GROUPS = """
CREATE TABLE bench_due (second int, trigger_id uuid);
INSERT INTO bench_due
SELECT (n - 1) / {each_second}, id FROM (
    SELECT id, row_number() OVER (ORDER BY id) AS n FROM trigger WHERE schedule IS NOT NULL) numbered
WHERE n <= {each_second} * {seconds};
CREATE INDEX ON bench_due (second);
"""
# Makes one group due now. Ticks lie on whole minutes, so each group has a tick at a minute of its own within the last
# hour, by which its runs are known. The schedule has no other tick within a year.
_MAKE_DUE = """
UPDATE trigger t
SET next_run_at = tick, schedule = to_char(tick AT TIME ZONE 'UTC', 'FMMI FMHH24 FMDD FMMM') || ' *'
FROM bench_due b, (SELECT timestamptz '{tick}' AS tick) made
WHERE b.second = {second} AND t.id = b.trigger_id
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--triggers", type=count, default=10_000, help="scheduled triggers")
    parser.add_argument("--schedulers", type=count, default=2, help="scheduler processes")
    parser.add_argument(
        "--each-second", type=int, default=0, metavar="N", help="let N of them come due each second"
    )
    parser.add_argument("--seconds", type=count, default=30, help="of that, at most 55")


def run(
    *, triggers: int, schedulers: int, each_second: int, seconds: int, say: Callable[[str], None]
) -> Json:
    """Measure with this number of scheduled triggers and scheduler processes. Raises ProcessFailed.

    With `each_second`, so many of the triggers come due each second, for `seconds`. Without it, first a sixtieth of
    them comes due, and then all at once.
    """
    if each_second * seconds > triggers or seconds > _MOST_SECONDS:
        raise ProcessFailed(f"{triggers} triggers are too few, or {seconds} seconds too many.")
    say("Starting PostgreSQL…")
    with database() as on:
        found = machine(on)
        say(f"Making {triggers} triggers…")
        on.python("-m", "testing.world.due_triggers", str(triggers))
        if each_second:
            on.execute(_GROUPS.format(each_second=each_second, seconds=seconds))
        on.settle()
        with scheduler_processes(on, schedulers) as pids:
            if each_second:
                say(f"{each_second} come due each second…")
                lag = {
                    f"{each_second} each second": _fire_each_second(on, each_second, seconds, pids)
                }
            else:
                say("One sixtieth of them comes due…")
                lag = {"spread over an hour's minutes": _fire(on, "schedule = '{minute} * * * *'")}
                say("All come due at once…")
                on.execute("UPDATE trigger SET schedule = '* * * * *' WHERE schedule IS NOT NULL")
                on.settle()
                lag["all at once"] = _fire(on, "schedule IS NOT NULL")
    return {"machine": found, "lag": lag}


def show(result: Json) -> None:
    print(f"{result['triggers']} triggers, {result['schedulers']} scheduler processes\n")
    keys = ("count", "p50Ms", "p99Ms", "schedulerCpuMs", "postgresCpuMs")
    cpu = ("schedulers' CPU ms for each", "PostgreSQL's, with the making due")
    print_table(
        ["lag until the run can be seen", "count", "p50 ms", "p99 ms", *cpu],
        [[name, *(at.get(key) for key in keys)] for name, at in result["lag"].items()],
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
            raise ProcessFailed(f"Only {len(lags)} of {expected} triggers have fired.")
        time.sleep(_LOOK_SECONDS)
    return latencies(lags)


def _fire_each_second(on: Database, each_second: int, seconds: int, pids: Sequence[int]) -> Json:
    """Make a group of triggers due each second, and measure when their runs can be seen.

    The lag is counted from the moment before a group is made due, so it includes that statement's time.
    """
    now: datetime = on.one("SELECT clock_timestamp() AS now")["now"]
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=seconds)
    due: dict[datetime, float] = {}
    seen: Counter[datetime] = Counter()
    lags: list[float] = []
    used = [cpu_seconds(pid) for pid in (*pids, on.pid)]
    began = time.monotonic()
    while len(lags) < each_second * seconds:
        elapsed = time.monotonic() - began
        if len(due) < seconds and elapsed >= len(due):
            tick = first + timedelta(minutes=len(due))
            on.execute(_MAKE_DUE.format(second=len(due), tick=tick.isoformat()))
            due[tick] = elapsed
        rows = on.all("SELECT scheduled_for AS at, count(*) FROM run GROUP BY 1")
        elapsed = time.monotonic() - began
        for row in rows:
            # The runs that are new since the last look are at most as late as this look.
            lags += [elapsed - due[row["at"]]] * (row["count"] - seen[row["at"]])
            seen[row["at"]] = row["count"]
        if elapsed > seconds + _LONGEST_AFTER:
            raise ProcessFailed(f"Only {len(lags)} of {each_second * seconds} triggers have fired.")
        time.sleep(_STEADY_LOOK_SECONDS)
    *schedulers, postgres = (
        cpu_seconds(pid) - before for pid, before in zip((*pids, on.pid), used, strict=True)
    )
    return {
        **latencies(lags),
        "schedulerCpuMs": 1000 * sum(schedulers) / len(lags),
        "postgresCpuMs": 1000 * postgres / len(lags),
    }
