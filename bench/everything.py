"""`bin/bench all`: every benchmark, one after another."""

import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from bench import (
    console,
    deliveries,
    events,
    events_in,
    firing,
    idle,
    lifecycle,
    peer,
    schedulers,
    start,
)
from bench.abuse import benchmark as abuse
from bench.failure import BenchFailed
from bench.figures import Json
from bench.growth import benchmark as growth
from bench.growth.verdicts import SHAPES
from bench.kill import benchmark as kill

# Each benchmark, with its arguments and the minutes that it takes on two quiet cores.
PARTS: tuple[tuple[str, ModuleType, Mapping[str, Any], int], ...] = (
    ("start", start, {"repeats": 5}, 1),
    (
        "lifecycle",
        lifecycle,
        {"clients": [1, 16, 64], "seconds": 10.0, "web_processes": 1, "protocol": "short"},
        4,
    ),
    (
        "lifecycle on two processes",
        lifecycle,
        {"clients": [16], "seconds": 10.0, "web_processes": 2},
        2,
    ),
    (
        "lifecycle of a pool",
        lifecycle,
        {"clients": [1, 16], "seconds": 10.0, "web_processes": 1, "pool": True},
        2,
    ),
    ("peer", peer, {"clients": [16], "seconds": 10.0}, 2),
    ("idle at 1000", idle, {"waiters": 1000, "seconds": 30.0}, 2),
    ("idle at 4000", idle, {"waiters": 4000, "seconds": 30.0}, 4),
    ("idle of a pool at 500", idle, {"waiters": 500, "seconds": 30.0, "pool": True}, 2),
    (
        "events",
        events,
        {
            "runs": 200,
            "rate": 20,
            # The reference worker gathers so long while a run tells more than ten events a call.
            "every": 2.0,
            "seconds": 30.0,
            "idle": 1000,
            "clients": 4,
            "web_processes": 2,
        },
        3,
    ),
    ("events-in", events_in, {"rate": 100, "clients": 4, "seconds": 60.0, "web_processes": 1}, 3),
    ("firing", firing, {"triggers": 10_000, "schedulers": 2}, 3),
    (
        "firing 1,000 each second",
        firing,
        {"triggers": 100_000, "schedulers": 2, "each_second": 1000, "seconds": 30},
        2,
    ),
    (
        "deliveries",
        deliveries,
        {"deliveries": 100_000, "hosts": 100, "seconds": 100.0, "schedulers": 2},
        3,
    ),
    ("console", console, {"triggers": 1000, "runs": 40_000, "repeats": 5}, 1),
    ("schedulers", schedulers, {"triggers": 2000, "seconds": 60.0}, 2),
    ("kill", kill, {"runs": 50, "seconds": 60.0, "seed": None}, 2),
    ("failover", kill, {"runs": 50, "seconds": 60.0, "seed": None, "failover": True}, 2),
    ("outage", kill, {"runs": 0, "seconds": 0.0, "seed": None, "outage": [4.0, 15.0]}, 3),
    ("abuse", abuse, {"floods": abuse.NAMES, "seconds": 30.0}, 10),
    (
        "growth",
        growth,
        {
            "sizes": [10_000, 200_000, 2_000_000],
            "month": 40_000,
            "repeats": 10,
            "values": None,
            "only": None,
            "shapes": SHAPES,
            "rows": [10_000, 100_000],
        },
        16,
    ),
)


def run(*, say: Callable[[str], None]) -> Json:
    """Run all benchmarks, and print the tables of each when it has finished. Return the results by name, with seconds.

    The result of one that fails has the reason as `failed`. The others still run, since all together take an hour.
    """
    say(f"This takes about {sum(minutes for *_, minutes in PARTS)} minutes.")
    results: dict[str, Json] = {}
    for name, benchmark, options, minutes in PARTS:
        say(f"— {name}, about {minutes} min")
        began = time.monotonic()
        print(f"## {name}\n")
        result: Json = {}
        try:
            result = benchmark.run(**options, say=say)
            benchmark.show(result)
        except BenchFailed as failure:
            result = {**result, "failed": str(failure)}
            print(f"Failed: {failure}")
        print(flush=True)
        results[name] = {**result, "tookSeconds": round(time.monotonic() - began)}
    return {"benchmark": "all", "results": results}


def show(result: Json) -> None:
    """Raise BenchFailed if a benchmark failed. It prints no tables, since `run` has printed them."""
    if failed := [name for name, each in result["results"].items() if "failed" in each]:
        raise BenchFailed(f"Failed: {', '.join(failed)}.")
