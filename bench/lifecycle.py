"""`bin/bench lifecycle`: measures whole lifecycles of runs over HTTP, and the same steps as bare SQL."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import bare_sql, lanes, pool_lifecycle, two_checkouts
from bench.cast import Pair, make_pairs
from bench.failure import BenchFailed
from bench.figures import Json, latencies, machine, print_machine, print_table, ratio
from bench.floor import load as floor_load
from bench.http_measure import drive_all, lifecycle_figures, show_calls, warm_up_of
from bench.kill.budgets import add_budgets
from bench.lifecycle_load import CALLS, SHORT_CALLS, drive, drive_short
from bench.stack import Database, Program, Web, database, web

# A bare Django view on the product's own server.
_FLOOR = Program(
    (
        "-m", "gunicorn", "-c", "python:pipedai.server.gunicorn_conf",
        "-k", "pipedai.server.worker.Worker", "bench.floor.asgi:application",
    ),
    {"DJANGO_SETTINGS_MODULE": "bench.floor.settings"},
)  # fmt: skip
_FLOOR_TABLE = """
CREATE TABLE IF NOT EXISTS bench_floor (n integer PRIMARY KEY, touched integer NOT NULL);
INSERT INTO bench_floor SELECT n, 0 FROM generate_series(0, 9999) AS n ON CONFLICT DO NOTHING;
"""
_AUDIT_ROWS = 4  # for each lifecycle: created, claimed, started, completed


def run(
    *,
    clients: Sequence[int],
    seconds: float,
    web_processes: int,
    budget: bool = False,
    pool: bool = False,
    protocol: str = "long",
    against: Path | None = None,
    rounds: int = 1,
    say: Callable[[str], None],
) -> Json:
    """Measure with each number of clients, and return the result as JSON. Raises BenchFailed.

    With `budget`, one budget covers all runs: each claim reserves in it, and each end settles it. With `pool`, it
    compares workers of one pool with workers that have a trigger each. With the `protocol` `short`, it also measures
    lifecycles by `claim-next`, beside those by poll, claim and start. With `against`, the path of another checkout, it
    only compares the web CPU of both, in so many `rounds`.
    """
    if against is not None:
        return two_checkouts.compare(
            against,
            clients=clients,
            seconds=seconds,
            processes=web_processes,
            rounds=rounds,
            pool=pool,
            say=say,
        )
    if pool:
        return pool_lifecycle.run(
            clients=clients, seconds=seconds, web_processes=web_processes, say=say
        )
    say("Starting PostgreSQL and the web server…")
    with database() as on:
        with (
            web(on, processes=web_processes) as served,
            web(on, processes=web_processes, program=_FLOOR) as floor,
        ):
            found = machine(on.one("SHOW server_version")["server_version"])
            pairs = make_pairs(served.port, max(clients))
            if budget:
                add_budgets(on, pairs, count=1)
            bare_sql.prepare(on)
            on.execute(_FLOOR_TABLE)
            results = []
            for count in clients:
                say(f"{count} clients over HTTP…")
                on.settle()
                used = drive_all(drive, on, served, pairs[:count], seconds)
                over_http = lifecycle_figures(used, seconds)
                _verify(on)
                say(f"{count} clients of a bare Django view…")
                on.settle()
                touched = drive_all(floor_load.drive, on, floor, range(count), seconds)
                bare_django = lifecycle_figures(touched, seconds)
                say(f"{count} clients in bare SQL…")
                on.settle()
                bare = _measure_bare(on, count, seconds)
                _verify(on)
                rate = over_http["lifecyclesPerSecond"]
                at = {
                    "clients": count,
                    "http": over_http,
                    "bareDjango": bare_django,
                    "bareSql": bare,
                    "ofBareDjango": ratio(rate, bare_django["lifecyclesPerSecond"]),
                    "ofBareSql": ratio(rate, bare["lifecyclesPerSecond"]),
                }
                if protocol == "short":
                    say(f"{count} clients by the short protocol…")
                    at["short"] = _measure_short(on, served, floor, pairs[:count], seconds, at)
                results.append(at)
        say("One call on the two-lane server and on gthread…")
        on.settle()
        servers = lanes.compare(on, pairs[:16], seconds=seconds, processes=web_processes)
    return {
        "benchmark": "lifecycle",
        "machine": found,
        "seconds": seconds,
        "webProcesses": web_processes,
        "budget": budget,
        "pool": False,
        "protocol": protocol,
        "results": results,
        "servers": servers,
    }


def show(result: Json) -> None:
    """Print the tables of a result."""
    print_machine(result["machine"])
    print()
    if "against" in result:
        two_checkouts.show(result)
        return
    if result["pool"]:
        pool_lifecycle.show(result)
        return
    rows: list[list[Any]] = []
    for at in result["results"]:
        rows += [
            ["HTTP", at["clients"], *_row(at["http"], at["ofBareDjango"], at["ofBareSql"])],
            ["bare Django view, 6 calls", at["clients"], *_row(at["bareDjango"])],
            ["bare SQL", at["clients"], *_row(at["bareSql"])],
        ]
        if short := at.get("short"):
            shares = (short["ofBareDjango"], short["ofBareSql"])
            rows += [
                ["HTTP, short protocol", at["clients"], *_row(short["http"], *shares)],
                ["bare Django view, 4 calls", at["clients"], *_row(short["bareDjango"])],
            ]
    print_table(
        [
            "lifecycle",
            "clients",
            "per s",
            "of the bare view",
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
    show_calls("call", CALLS, {at["clients"]: at["http"] for at in result["results"]})
    if result["protocol"] == "short":
        short = {at["clients"]: at["short"]["http"] for at in result["results"]}
        show_calls("call of the short protocol", SHORT_CALLS, short)
        for at in result["results"]:
            print(
                f"With {at['clients']} clients the short protocol does {at['short']['ofLong']:.2f} times as many"
                f" lifecycles, with {at['short']['cpuOfLong']:.2f} times the web CPU each."
            )
        print()
    servers = result["servers"]
    rows = [
        [name, servers[key]["webCpuMs"], servers[key]["requestsPerSecond"], of_gthread]
        for name, key, of_gthread in (
            ("two lanes", "lanes", servers["ofGthread"]),
            ("gthread", "gthread", None),
        )
    ]
    print_table(
        [f"GET /triggers/:id, {servers['clients']} clients", "web CPU ms", "per s", "of gthread"],
        rows,
    )


def _row(figures: Json, *of_bare: float | None) -> list[Any]:
    shares = [None if each is None else f"{100 * each:.1f} %" for each in of_bare or (None, None)]
    keys = ("webCpuMs", "postgresCpuMs", "loadCpuMs", "webRssMb")
    return [
        figures["lifecyclesPerSecond"],
        *shares,
        figures["lifecycle"]["p50Ms"],
        figures["lifecycle"]["p99Ms"],
        *(figures.get(key) for key in keys),
    ]


def _measure_short(
    on: Database, served: Web, floor: Web, pairs: Sequence[Pair], seconds: float, long: Json
) -> Json:
    """Measure lifecycles by the short protocol, and compare them with those by the long one, whose figures are
    `long`.
    """
    on.settle()
    used = drive_all(drive_short, on, served, pairs, seconds)
    over_http = lifecycle_figures(used, seconds)
    _verify(on)
    on.settle()
    touched = drive_all(floor_load.drive_short, on, floor, range(len(pairs)), seconds)
    bare_django = lifecycle_figures(touched, seconds)
    rate = over_http["lifecyclesPerSecond"]
    return {
        "http": over_http,
        "bareDjango": bare_django,
        "ofLong": ratio(rate, long["http"]["lifecyclesPerSecond"]),
        "cpuOfLong": ratio(over_http["webCpuMs"], long["http"]["webCpuMs"]),
        "ofBareDjango": ratio(rate, bare_django["lifecyclesPerSecond"]),
        "ofBareSql": ratio(rate, long["bareSql"]["lifecyclesPerSecond"]),
    }


def _measure_bare(on: Database, clients: int, seconds: float) -> Json:
    measured = bare_sql.measure(on, clients=clients, warm_up=warm_up_of(seconds), seconds=seconds)
    done = len(measured.lifecycles)
    if not done:
        raise BenchFailed("No lifecycle ended within the time: give it more --seconds.")
    return {
        "lifecyclesPerSecond": round(done / seconds, 2),
        "lifecycle": latencies(measured.lifecycles),
        "postgresCpuMs": round(1000 * measured.postgres_cpu_seconds / done, 3),
    }


def _verify(on: Database) -> None:
    """Check that all runs have ended and have all their audit rows, since speed without guarantees does not count."""
    found = on.one(
        "SELECT count(*) AS runs, count(*) FILTER (WHERE status <> 'succeeded') AS unfinished,"
        " (SELECT count(*) FROM audit_entry WHERE target_type = 'run') AS entries FROM run"
    )
    if found["unfinished"] or found["entries"] != _AUDIT_ROWS * found["runs"]:
        raise BenchFailed(f"The ledger and the audit log disagree: {found}.")
