"""The same lifecycle on a Prefect server, side by side: one process each, on the same PostgreSQL.

Prefect is installed below PIPEDAI_DATA_DIR, and stays.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from bench import prefect
from bench.cast import make_pairs
from bench.figures import Json, machine, print_table, ratio, show_calls
from bench.lifecycle import CALLS, drive
from bench.load import measure
from bench.options import count, one_or_more, seconds
from testing.processes.failure import ProcessFailed
from testing.processes.stack import database, web

IN_ALL = ("--clients 16",)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=one_or_more(count), default="1,16", help="each of these")
    parser.add_argument("--seconds", type=seconds, default=10.0, help="for each measurement")


def run(*, clients: Sequence[int], seconds: float, say: Callable[[str], None]) -> Json:
    """Measure both with each number of clients. Raises ProcessFailed."""
    say(f"Installing Prefect {prefect.VERSION} unless it is there…")
    program = prefect.install()
    say("Starting PostgreSQL and both servers…")
    with (
        database() as on,
        web(on, processes=1) as served,
        prefect.server(on, program) as other,
    ):
        found = machine(on)
        pairs = make_pairs(served.port, max(clients))
        assigned = prefect.make_assigned(other.port, max(clients))
        results = []
        for number in clients:
            say(f"{number} clients here…")
            here = measure(drive, on, served, pairs[:number], seconds)
            say(f"{number} clients of Prefect…")
            there = measure(prefect.drive, on, other, assigned[:number], seconds)
            results.append(
                {"clients": number, "pipedai": here, "prefect": there, **_ratios(here, there)}
            )
        if left := on.one("SELECT count(*) FROM run WHERE status <> 'succeeded'")["count"]:
            raise ProcessFailed(f"{left} runs have not succeeded.")
    return {"machine": found, "prefectVersion": prefect.VERSION, "results": results}


def show(result: Json) -> None:
    names = {"pipedai": "PipedAI", "prefect": f"Prefect {result['prefectVersion']}"}
    rows: list[list[Any]] = []
    for at in result["results"]:
        for key, name in names.items():
            figures = at[key]
            rows.append(
                [
                    name,
                    at["clients"],
                    figures["lifecyclesPerSecond"],
                    figures["lifecycle"]["p50Ms"],
                    figures["lifecycle"]["p99Ms"],
                    *(figures[each] for each in ("webCpuMs", "postgresCpuMs", "webRssMb")),
                ]
            )
        ratios = (at["webCpuRatio"], at["postgresCpuRatio"], None)
        rows.append(["ratio", at["clients"], at["rateRatio"], None, None, *ratios])
    cpu = ("web CPU ms", "PostgreSQL CPU ms", "web RSS MB")
    print_table(["server", "clients", "per s", "p50 ms", "p99 ms", *cpu], rows)
    print()
    last = result["results"][-1]
    print(f"{last['clients']} clients:\n")
    show_calls(CALLS, {name: last[key] for key, name in names.items()})


def _ratios(here: Json, there: Json) -> Json:
    """Return how many times as many lifecycles this service does, and how many times as much CPU Prefect needs."""
    return {
        "rateRatio": ratio(here["lifecyclesPerSecond"], there["lifecyclesPerSecond"]),
        "webCpuRatio": ratio(there["webCpuMs"], here["webCpuMs"]),
        "postgresCpuRatio": ratio(there["postgresCpuMs"], here["postgresCpuMs"]),
    }
