"""`bin/bench abuse`: one tenant floods the service while another works normally; measures what the other notices."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.abuse import hooks, ticking
from bench.abuse.flooding import Flood, Sent, Stage, drive
from bench.abuse.floods import FLOODS
from bench.abuse.life import LIVE, LOGIN, WAKE_UP, live
from bench.abuse.tenants import Neighbour, settle_in
from bench.abuse.ticking import come_due
from bench.abuse.verdict import compare
from bench.abuse.watch import watch
from bench.background import scheduler_processes
from bench.failure import BenchFailed
from bench.figures import Json, machine, print_machine, print_table
from bench.http_client import Connection
from bench.load import Load, event
from bench.open_files import allow_files
from bench.stack import Database, Web, database, web

NAMES = tuple(flood.name for flood in FLOODS)

# As in production, the service tells callers apart by their addresses and sends webhooks, here to this machine.
_SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "pipedai.settings",
    "TRUSTED_PROXIES": "127.0.0.1",
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
}
# The ceiling of triggers is higher for all workspaces, since the flood of due triggers needs more of them.
_RAISE = """ALTER TABLE workspace ALTER ceilings SET DEFAULT '{"triggersOfCreator": 100000}'"""
_OPEN_FILES = 4096
_WARM_UP_SECONDS = 3.0
# The service is calm again after so many answers in a row that each took less than so many seconds.
_CALM_ANSWERS, _CALM_SECONDS, _LONGEST_SECONDS = 5, 0.1, 180.0


def run(*, floods: Sequence[str], seconds: float, say: Callable[[str], None]) -> Json:
    """Flood in each of these ways for `seconds`, and return the result as JSON. Raises BenchFailed."""
    allow_files(_OPEN_FILES)
    say("Starting PostgreSQL and the scheduler…")
    with database(**_SETTINGS) as on:
        # `release` also sets what a served instance has besides its schema, such as the database's time limits.
        on.python("manage.py", "release")
        on.execute(_RAISE)
        found = machine(on.one("SHOW server_version")["server_version"])
        with scheduler_processes(on, 1):
            results = list(_measure_each(floods, on, seconds, say))
    return {"benchmark": "abuse", "machine": found, "seconds": seconds, "results": results}


def show(result: Json) -> None:
    """Print the tables of a result. Raises BenchFailed if the neighbour notices a flood more than the targets allow."""
    print_machine(result["machine"])
    print(
        f"{result['seconds']:g} s with each flood, and as long without, half before and half after"
    )
    results = result["results"]
    for at in results:
        print(f"\n- **{at['flood']}**: {at['what']}. Came of it: {_words(at['answers'])}.", end="")
        if at["with"]["failures"]:
            print(f" The neighbour's failures: {_words(at['with']['failures'])}.", end="")
    print("\n")
    heads = ["neighbour's calls", "count", "p50 ms", "with", "p99 ms", "with", "failed", "with"]
    print_table(heads, [_calls_row(at) for at in results])
    print()
    kinds = (LOGIN, WAKE_UP, LIVE, hooks.KIND, ticking.KIND)
    heads = ["p99 ms", *(head for kind in kinds for head in (kind, "with"))]
    print_table(heads, [[at["flood"], *_kinds_row(at, kinds)] for at in results])
    print()
    print_table(
        [
            "web process", "RSS MB before", "its peak", "peak with", "CPU %", "with",
            "flood's client CPU %", "calm again s",
        ],
        [_process_row(at) for at in results],
    )  # fmt: skip
    print()
    print_table(
        ["verdict", "p99 ratio", "memory more MB", "webhooks later s", "schedules later s", ""],
        [_verdict_row(at) for at in results],
    )
    if missed := [at["flood"] for at in results if at["notMet"]]:
        raise BenchFailed(f"NOT met: {', '.join(missed)}.")


def _measure_each(
    floods: Sequence[str], on: Database, seconds: float, say: Callable[[str], None]
) -> Iterator[Json]:
    neighbour: Neighbour | None = None
    for flood in (each() for each in FLOODS if each.name in floods):
        # Each flood gets a new web process, since a process keeps the memory that it has once needed.
        with web(on, processes=1) as served:
            say(f"{flood.name}: setting it up…")
            neighbour = neighbour or settle_in(on, served.port)
            yield _measure(flood, on, served, neighbour, seconds, say)


def _measure(
    flood: Flood,
    on: Database,
    served: Web,
    neighbour: Neighbour,
    seconds: float,
    say: Callable[[str], None],
) -> Json:
    """Measure without the flood, with it, and without it again, so that both are of the same minutes on one machine."""
    flood.prepare(Stage(on, served.port, seconds))
    on.settle()
    end, stop = event(), event()
    with (
        Load(live, served.port, neighbour, end) as living,
        Load(come_due, on, neighbour.scheduled, end) as ticks,
    ):
        time.sleep(min(_WARM_UP_SECONDS, seconds))
        say(f"{flood.name}: without…")
        before = watch(on, served, seconds / 2)
        say(f"{flood.name}: with…")
        with Load(drive, flood, served.port, stop) as flooding:
            flooded = watch(on, served, seconds)
            stop.set()
            sent: Sent = flooding.result(within=0)
        flood.clear(on)
        calm_after = _wait_until_calm(served)
        living.check()
        calm = [before]
        if calm_after is not None:
            say(f"{flood.name}: without again…")
            calm.append(watch(on, served, seconds / 2))
        end.set()
        came_due = ticks.result(within=0)
        # A trigger can come due once a minute, so those that did so last come last in the next flood.
        neighbour.scheduled.rotate(-len(came_due))
        things = [*living.result(within=0), *came_due]
    return {
        "flood": flood.name,
        "what": flood.what,
        "answers": sent.answers,
        "clientCpuPercent": round(100 * sent.cpu_seconds / seconds),
        "calmAgainSeconds": calm_after,
        **compare(things, calm, flooded, calm_again=calm_after is not None),
    }


def _wait_until_calm(served: Web) -> float | None:
    """Wait until the service is calm again. Return after how many seconds, or None if it did not become calm."""
    began, in_a_row = time.monotonic(), 0
    while in_a_row < _CALM_ANSWERS:
        asked = time.monotonic()
        left = began + _LONGEST_SECONDS - asked
        if left <= 0:
            return None
        try:
            with Connection(served.port, timeout=left) as connection:
                connection.call("GET", "/health")
        except OSError:
            in_a_row = 0
            continue
        in_a_row = in_a_row + 1 if time.monotonic() - asked < _CALM_SECONDS else 0
        time.sleep(_CALM_SECONDS)
    return round(time.monotonic() - began, 1)


def _words(counts: Json) -> str:
    return ", ".join(f"{n:,} × {what}" for what, n in counts.items()) or "nothing"


def _calls_row(at: Json) -> list[Any]:
    without, with_it = at["without"], at["with"]
    return [
        at["flood"],
        with_it["calls"]["count"],
        *(each["calls"][key] for key in ("p50Ms", "p99Ms") for each in (without, with_it)),
        without["failed"],
        with_it["failed"],
    ]


def _kinds_row(at: Json, kinds: Sequence[str]) -> list[float | None]:
    phases = (at["without"], at["with"])
    return [each["kinds"].get(kind, {}).get("p99Ms") for kind in kinds for each in phases]


def _process_row(at: Json) -> list[Any]:
    without, with_it = at["without"], at["with"]
    return [
        at["flood"],
        at["usualRssMb"],
        at["peakBeforeMb"],
        with_it["peakRssMb"],
        without["webCpuPercent"],
        with_it["webCpuPercent"],
        at["clientCpuPercent"],
        at["calmAgainSeconds"],
    ]


def _verdict_row(at: Json) -> list[Any]:
    verdict = f"NOT met: {', '.join(at['notMet'])}" if at["notMet"] else "ok"
    return [
        at["flood"],
        at["p99Ratio"],
        at["moreMemoryMb"],
        *(at["laterSeconds"][kind] for kind in (hooks.KIND, ticking.KIND)),
        verdict,
    ]
