"""`bin/bench lifecycle`: whole lifecycles of runs over HTTP, beside the same steps as bare SQL."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bench import bare_sql
from bench.cast import Pair, make_pairs
from bench.failure import BenchFailed
from bench.figures import Json, latencies, machine, print_machine, print_table, ratio
from bench.lifecycle_load import CALLS, Measured, drive
from bench.load import Load, Window, sleep_until
from bench.stack import Database, Web, database, web
from bench.usage import Cpu, cpu_seconds

# Also the time for the clients to start and connect.
WARM_UP_SECONDS = 1.5
_AUDIT_ROWS = 4  # created, claimed, started, completed


def run(
    *, clients: Sequence[int], seconds: float, web_processes: int, say: Callable[[str], None]
) -> Json:
    """Measure at each number of clients; the result as JSON. Raises BenchFailed."""
    say("Starting PostgreSQL and the web server…")
    with database() as on, web(on, processes=web_processes) as served:
        found = machine(on.one("SHOW server_version")["server_version"])
        pairs = make_pairs(served.port, max(clients))
        bare_sql.prepare(on)
        results = []
        for count in clients:
            say(f"{count} clients over HTTP…")
            on.settle()
            over_http = _measure_http(on, served, pairs[:count], seconds)
            _verify(on)
            say(f"{count} clients in bare SQL…")
            on.settle()
            bare = _measure_bare(on, count, seconds)
            _verify(on)
            of_bare = ratio(over_http["lifecyclesPerSecond"], bare["lifecyclesPerSecond"])
            results.append(
                {"clients": count, "http": over_http, "bareSql": bare, "ofBareSql": of_bare}
            )
    return {
        "benchmark": "lifecycle",
        "machine": found,
        "seconds": seconds,
        "webProcesses": web_processes,
        "results": results,
    }


def show(result: Json) -> None:
    """Print the tables of a result."""
    print_machine(result["machine"])
    print()
    rows: list[list[Any]] = []
    for at in result["results"]:
        count, over_http, bare = at["clients"], at["http"], at["bareSql"]
        rows += [
            [
                "HTTP",
                count,
                over_http["lifecyclesPerSecond"],
                f"{100 * (at['ofBareSql'] or 0):.1f} %",
                over_http["lifecycle"]["p50Ms"],
                over_http["lifecycle"]["p99Ms"],
                over_http["webCpuMs"],
                over_http["postgresCpuMs"],
                over_http["loadCpuMs"],
                over_http["webRssMb"],
            ],
            [
                "bare SQL",
                count,
                bare["lifecyclesPerSecond"],
                None,
                bare["lifecycle"]["p50Ms"],
                bare["lifecycle"]["p99Ms"],
                None,
                bare["postgresCpuMs"],
                None,
                None,
            ],
        ]
    print_table(
        [
            "lifecycle",
            "clients",
            "per s",
            "of bare SQL",
            "p50 ms",
            "p99 ms",
            "web CPU ms",
            "PostgreSQL CPU ms",
            "load CPU ms",
            "web RSS MB",
        ],
        rows,
    )
    print()
    heads = ["call"]
    for at in result["results"]:
        heads += [f"p50 ms at {at['clients']}", f"p99 ms at {at['clients']}"]
    calls = []
    for name in CALLS:
        figures = [at["http"]["calls"][name] for at in result["results"]]
        calls.append([name, *(f[key] for f in figures for key in ("p50Ms", "p99Ms"))])
    print_table(heads, calls)


def _measure_http(on: Database, served: Web, pairs: Sequence[Pair], seconds: float) -> Json:
    window = Window.after(WARM_UP_SECONDS, seconds)
    with ExitStack() as stack:
        loads: list[Load[Measured]] = [
            stack.enter_context(Load(drive, served.port, pair, window)) for pair in pairs
        ]
        sleep_until(window.start)
        before = _cpu(on, served)
        sleep_until(window.end)
        used, rss = _cpu(on, served).since(before), served.rss
        measured = [load.result(within=0) for load in loads]
    lifecycles = [each for one in measured for each in one.lifecycles]
    if not lifecycles:
        raise BenchFailed("No lifecycle ended within the time: give it more --seconds.")
    done = len(lifecycles)
    return {
        "lifecyclesPerSecond": round(done / seconds, 2),
        "lifecycle": latencies(lifecycles),
        "calls": {
            name: latencies([each for one in measured for each in one.calls[name]])
            for name in CALLS
        },
        "webCpuMs": round(1000 * used.web / done, 3),
        "postgresCpuMs": round(1000 * used.postgres / done, 3),
        "loadCpuMs": round(1000 * sum(one.cpu_seconds for one in measured) / done, 3),
        "webRssMb": round(rss / 2**20, 1),
    }


def _measure_bare(on: Database, clients: int, seconds: float) -> Json:
    measured = bare_sql.measure(on, clients=clients, warm_up=WARM_UP_SECONDS, seconds=seconds)
    done = len(measured.lifecycles)
    if not done:
        raise BenchFailed("No lifecycle ended within the time: give it more --seconds.")
    return {
        "lifecyclesPerSecond": round(done / seconds, 2),
        "lifecycle": latencies(measured.lifecycles),
        "postgresCpuMs": round(1000 * measured.postgres_cpu_seconds / done, 3),
    }


def _cpu(on: Database, served: Web) -> Cpu:
    return Cpu(served.cpu_seconds, cpu_seconds(on.pid))


def _verify(on: Database) -> None:
    """Speed that drops a guarantee does not count: all has ended, and all is in the audit log."""
    found = on.one(
        "SELECT count(*) AS runs, count(*) FILTER (WHERE status <> 'succeeded') AS unfinished,"
        " (SELECT count(*) FROM audit_entry WHERE target_type = 'run') AS entries FROM run"
    )
    if found["unfinished"] or found["entries"] != _AUDIT_ROWS * found["runs"]:
        raise BenchFailed(f"The ledger and the audit log disagree: {found}.")
