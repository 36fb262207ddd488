"""`bin/bench lifecycle --pool`: measures whole lifecycles of a pool's runs, beside those of workers' own runs."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.cast import make_pairs
from bench.failure import BenchFailed
from bench.figures import Json, machine, print_table, ratio
from bench.http_measure import drive_all, lifecycle_figures, show_calls
from bench.lifecycle_load import CALLS, drive, drive_in_pool
from bench.stack import Database, database, web

_OWN, _POOL = "own", "pool"
_NAMES = {_OWN: "each worker has a trigger", _POOL: "all are in one pool"}
_DRIVEN = {_OWN: drive, _POOL: drive_in_pool}


def run(
    *, clients: Sequence[int], seconds: float, web_processes: int, say: Callable[[str], None]
) -> Json:
    """Measure with each number of clients, and return the result as JSON. Raises BenchFailed."""
    say("Starting PostgreSQL and the web server…")
    with database() as on, web(on, processes=web_processes) as served:
        found = machine(on.one("SHOW server_version")["server_version"])
        pairs = {kind: make_pairs(served.port, max(clients), pool=kind == _POOL) for kind in _NAMES}
        results = []
        for count in clients:
            at: Json = {"clients": count}
            for kind, name in _NAMES.items():
                say(f"{count} clients, {name}…")
                on.settle()
                used = drive_all(_DRIVEN[kind], on, served, pairs[kind][:count], seconds)
                at[kind] = lifecycle_figures(used, seconds)
                if kind == _POOL:
                    claims = sum(one.claims for one in used.measured)
                    lost = sum(one.lost_claims for one in used.measured)
                    at["lostClaims"] = ratio(lost, claims - lost)
                _verify(on)
            results.append(at)
    return {
        "benchmark": "lifecycle",
        "machine": found,
        "seconds": seconds,
        "webProcesses": web_processes,
        "pool": True,
        "results": results,
    }


def show(result: Json) -> None:
    """Print the tables of a result."""
    rows: list[list[Any]] = []
    for at in result["results"]:
        for kind, name in _NAMES.items():
            figures = at[kind]
            rows.append(
                [
                    name,
                    at["clients"],
                    figures["lifecyclesPerSecond"],
                    figures["lifecycle"]["p50Ms"],
                    figures["lifecycle"]["p99Ms"],
                    *(figures[key] for key in ("webCpuMs", "postgresCpuMs", "loadCpuMs")),
                    at["lostClaims"] if kind == _POOL else None,
                ]
            )
    cpu = ("web CPU ms", "PostgreSQL CPU ms", "load CPU ms")
    heads = ["lifecycle", "clients", "per s", "p50 ms", "p99 ms", *cpu, "claims lost"]
    print_table(heads, rows)
    print()
    show_calls(
        "call of a pool's worker", CALLS, {at["clients"]: at[_POOL] for at in result["results"]}
    )


def _verify(on: Database) -> None:
    """Check that all runs have succeeded, each once, and that each has its audit rows."""
    found = on.one(
        "SELECT count(*) AS runs, count(*) FILTER (WHERE status <> 'succeeded') AS unfinished,"
        " (SELECT count(*) FROM audit_entry WHERE action = 'run.claimed') AS claims,"
        " (SELECT count(*) FROM audit_entry WHERE action = 'run.completed') AS ends FROM run"
    )
    if found["unfinished"] or not found["runs"] == found["claims"] == found["ends"]:
        raise BenchFailed(f"The ledger and the audit log disagree: {found}.")
