"""`bin/bench peer`: measures whole lifecycles on this service and on a Prefect server, on the same PostgreSQL."""

from collections.abc import Callable, Sequence
from typing import Any

from bench import prefect
from bench.cast import make_pairs
from bench.failure import BenchFailed
from bench.figures import Json, machine, print_machine, print_table, ratio
from bench.http_measure import drive_all, lifecycle_figures
from bench.lifecycle_load import CALLS, drive
from bench.stack import database, web


def run(*, clients: Sequence[int], seconds: float, say: Callable[[str], None]) -> Json:
    """Measure both with each number of clients, one server process each. Returns JSON. Raises BenchFailed."""
    say(f"Installing Prefect {prefect.VERSION} unless it is there…")
    program = prefect.install()
    say("Starting PostgreSQL and both servers…")
    with (
        database() as on,
        web(on, processes=1) as served,
        prefect.server(on, program) as other,
    ):
        found = machine(on.one("SHOW server_version")["server_version"])
        pairs = make_pairs(served.port, max(clients))
        assigned = prefect.make_assigned(other.port, max(clients))
        results = []
        for count in clients:
            say(f"{count} clients here…")
            on.settle()
            here = lifecycle_figures(drive_all(drive, on, served, pairs[:count], seconds), seconds)
            say(f"{count} clients of Prefect…")
            on.settle()
            used = drive_all(prefect.drive, on, other, assigned[:count], seconds)
            there = lifecycle_figures(used, seconds)
            results.append(
                {"clients": count, "pipedai": here, "prefect": there, **_ratios(here, there)}
            )
        if left := on.one("SELECT count(*) FROM run WHERE status <> 'succeeded'")["count"]:
            raise BenchFailed(f"{left} runs have not succeeded.")
    return {
        "benchmark": "peer",
        "machine": found,
        "prefect": prefect.VERSION,
        "seconds": seconds,
        "webProcesses": 1,
        "results": results,
    }


def show(result: Json) -> None:
    """Print the tables of a result."""
    print_machine(result["machine"])
    print()
    rows: list[list[Any]] = []
    for at in result["results"]:
        for name, key in (("PipedAI", "pipedai"), (f"Prefect {result['prefect']}", "prefect")):
            figures = at[key]
            rows.append(
                [
                    name,
                    at["clients"],
                    figures["lifecyclesPerSecond"],
                    figures["lifecycle"]["p50Ms"],
                    figures["lifecycle"]["p99Ms"],
                    figures["webCpuMs"],
                    figures["postgresCpuMs"],
                    figures["webRssMb"],
                ]
            )
        rows.append(
            ["ratio", at["clients"], at["rateRatio"], None, None, at["webCpuRatio"], at["postgresCpuRatio"], None]
        )  # fmt: skip
    heads = [
        "server",
        "clients",
        "per s",
        "p50 ms",
        "p99 ms",
        "web CPU ms",
        "PostgreSQL CPU ms",
        "web RSS MB",
    ]
    print_table(heads, rows)
    print()
    last = result["results"][-1]
    print_table(
        [f"call, {last['clients']} clients", "PipedAI p50 ms", "p99 ms", "Prefect p50 ms", "p99 ms"],
        [
            [call, *(last[key]["calls"][call][q] for key in ("pipedai", "prefect") for q in ("p50Ms", "p99Ms"))]
            for call in CALLS
        ],
    )  # fmt: skip


def _ratios(here: Json, there: Json) -> Json:
    """Return how many times as many lifecycles this service does, and how many times as much CPU Prefect needs."""
    return {
        "rateRatio": ratio(here["lifecyclesPerSecond"], there["lifecyclesPerSecond"]),
        "webCpuRatio": ratio(there["webCpuMs"], here["webCpuMs"]),
        "postgresCpuRatio": ratio(there["postgresCpuMs"], here["postgresCpuMs"]),
    }
