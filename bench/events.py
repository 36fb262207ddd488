"""`bin/bench events`: measures how soon readers see what runs tell, and what a silent stream costs."""

import math
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from typing import Any

from bench.cast import Customer
from bench.events_load import Sent, Stream, Told, read, tell
from bench.failure import BenchFailed
from bench.figures import Json, latencies, machine, print_machine, print_table, ratio
from bench.http_client import Connection
from bench.http_measure import cpu, drive_all, lifecycle_figures, warm_up_of
from bench.lifecycle_load import drive
from bench.load import Load, Window, event, sleep_until
from bench.open_files import allow_files
from bench.stack import Database, Web, database, web

# A caller may have 20 streams open, so each environment with its key has at most so many.
_STREAMS_OF_A_KEY = 20
_SPARE_FILES = 500
_OPEN_SECONDS = 300.0
_SETTLE_SECONDS = 3.0


def run(
    *,
    runs: int,
    rate: int,
    every: float,
    seconds: float,
    idle: int,
    clients: int,
    web_processes: int,
    say: Callable[[str], None],
) -> Json:
    """Measure, and return the result as JSON. Raises BenchFailed if an event is lost, doubled or out of order.

    `runs` workers tell `rate` events a second each, in a call every `every` seconds, and as many readers stream them:
    first alone, then with `clients` beside them that run lifecycles. Before that, `idle` streams wait for nothing.
    """
    allow_files(2 * max(runs, idle) + _SPARE_FILES)
    say("Starting PostgreSQL and the web server…")
    with database() as on, web(on, processes=web_processes) as served:
        found = machine(on.one("SHOW server_version")["server_version"])
        keys = -(-max(runs, idle) // _STREAMS_OF_A_KEY)
        say(f"Making {runs} running runs in {keys} environments…")
        told = _runs(served.port, runs, keys)
        with Connection(served.port) as connection:
            customer = Customer(connection)
            beside = list(customer.pairs(clients, 1))
        on.settle()
        say(f"{clients} clients run lifecycles alone…")
        alone = lifecycle_figures(drive_all(drive, on, served, beside, seconds), seconds)
        say(f"{idle} streams wait…")
        memory = _idle(served, told, idle)
        on.settle()
        say(f"{runs} runs tell {rate} events a second each, alone and then beside lifecycles…")
        result = _measure(on, served, told, rate, every, seconds, beside)
    flowing = result.pop("lifecycles")
    return {
        "benchmark": "events",
        "machine": found,
        "seconds": seconds,
        "runs": runs,
        "eventsPerRunAndSecond": rate,
        "secondsBetweenCalls": every,
        "webProcesses": web_processes,
        "idleStreams": idle,
        "webMemoryKbPerIdleStream": memory,
        **result,
        "lifecyclesPerSecond": {
            "clients": clients,
            "alone": alone["lifecyclesPerSecond"],
            "besideEvents": flowing["lifecyclesPerSecond"],
            "share": ratio(flowing["lifecyclesPerSecond"], alone["lifecyclesPerSecond"]),
        },
    }


def show(result: Json) -> None:
    """Print the tables of a result."""
    print_machine(result["machine"])
    print()
    print_table(
        ["runs", "events/s", "events", "lost", "doubled", "p50 ms", "p99 ms", "call p99 ms"],
        [
            [
                result["runs"],
                result["eventsPerSecond"],
                result["events"],
                result["lost"],
                result["doubled"],
                result["untilRead"]["p50Ms"],
                result["untilRead"]["p99Ms"],
                result["calls"]["p99Ms"],
            ]
        ],
    )
    print()
    alone = result["alone"]
    print_table(
        ["alone: p50 ms", "p99 ms", "web CPU ms a call", "PostgreSQL CPU ms a call"],
        [
            [
                alone["untilRead"]["p50Ms"],
                alone["untilRead"]["p99Ms"],
                alone["webCpuMsPerCall"],
                alone["postgresCpuMsPerCall"],
            ]
        ],
    )
    print()
    lifecycles = result["lifecyclesPerSecond"]
    print_table(
        ["idle streams", "web memory KB each", "lifecycles/s alone", "beside events", "share"],
        [
            [
                result["idleStreams"],
                result["webMemoryKbPerIdleStream"],
                lifecycles["alone"],
                lifecycles["besideEvents"],
                lifecycles["share"],
            ]
        ],
    )


def _runs(port: int, count: int, keys: int) -> list[Told]:
    """Make running runs that record events, spread over environments with a key each."""
    with Connection(port) as connection:
        customer = Customer(connection)
        environments = [customer.environment(f"events-{number}") for number in range(keys)]
        told = []
        for number in range(max(count, keys)):
            environment_id, key = environments[number % keys]
            pair = customer.pair(environment_id, key, f"host-{number}", recordEvents="always")
            path = f"/triggers/{pair.trigger_id}/run"
            run_id = connection.call("POST", path, token=key).json()["id"]
            for verb in ("claim", "start"):
                path = f"/workers/{pair.worker_id}/runs/{run_id}/{verb}"
                connection.call("POST", path, token=pair.worker_token, body={})
            told.append(Told(pair, run_id))
        return told


def _streams(told: Sequence[Told], count: int) -> list[Stream]:
    """Return so many streams of these runs, each read with the key of the run's environment."""
    chosen = [told[number % len(told)] for number in range(count)]
    return [Stream(f"/runs/{each.run_id}/events/stream", each.pair.api_key) for each in chosen]


def _idle(served: Web, told: Sequence[Told], count: int) -> float:
    """Return how many KB of the web server's memory each of so many streams takes that have nothing to tell."""
    before = served.rss
    ready, stop = event(), event()
    with Load(read, served.port, _streams(told, count), ready, stop, [0] * count) as reading:
        _wait(ready, reading)
        time.sleep(_SETTLE_SECONDS)
        used = served.rss - before
        stop.set()
        reading.result(within=_OPEN_SECONDS)
    return round(used / count / 1024, 1)


def _measure(
    on: Database,
    served: Web,
    told: Sequence[Told],
    rate: int,
    every: float,
    seconds: float,
    beside: Sequence[object],
) -> Json:
    # The workers tell alone for `seconds`. Then the drivers of lifecycles warm up, and drive for as long.
    telling_seconds = every * math.ceil((2 * seconds + warm_up_of(seconds)) / every)
    count = max(1, round(rate * every))
    ready, stop = event(), event()
    streams = _streams(told, len(told))
    expected = [count * round(telling_seconds / every)] * len(told)
    with Load(read, served.port, streams, ready, stop, expected) as reading:
        _wait(ready, reading)
        window = Window.after(warm_up_of(seconds), telling_seconds)
        alone_until = window.start + seconds
        with Load(tell, served.port, told, window, rate, every) as telling:
            sleep_until(window.start)
            before = cpu(on, served)
            sleep_until(alone_until)
            spent = cpu(on, served).since(before)
            lifecycles = lifecycle_figures(drive_all(drive, on, served, beside, seconds), seconds)
            sent: Sent = telling.result(within=seconds)
        stop.set()
        came = reading.result(within=_OPEN_SECONDS)
    delays = _delays(sent, came)
    calls = len(told) * seconds / every
    return {
        "events": sum(map(len, sent.began)),
        "lost": 0,
        "doubled": 0,
        "eventsPerSecond": round(count * len(told) / every),
        "untilRead": latencies([delay for began, delay in delays if began >= alone_until]),
        "calls": latencies(sent.calls),
        "alone": {
            "untilRead": latencies([delay for began, delay in delays if began < alone_until]),
            "webCpuMsPerCall": round(1000 * spent.web / calls, 3),
            "postgresCpuMsPerCall": round(1000 * spent.postgres / calls, 3),
        },
        "lifecycles": lifecycles,
    }


def _delays(sent: Sent, came: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[float, float]]:
    """Return for each event when its call began, and how many seconds later it was read.

    Raises BenchFailed unless each event came once and in order.
    """
    lost = doubled = 0
    delays = []
    for began, read_ in zip(sent.began, came, strict=True):
        numbers = [number for number, _ in read_]
        lost += len(set(range(1, len(began) + 1)) - set(numbers))
        doubled += len(numbers) - len(set(numbers))
        if numbers != sorted(numbers):
            raise BenchFailed("Events came out of order.")
        delays += [(began[number - 1], at - began[number - 1]) for number, at in read_]
    if lost or doubled:
        raise BenchFailed(f"{lost} events were lost, and {doubled} came twice.")
    return delays


def _wait(ready: Event, reading: Load[Any]) -> None:
    deadline = time.monotonic() + _OPEN_SECONDS
    while not ready.wait(0.2):
        reading.check()
        if time.monotonic() > deadline:
            raise BenchFailed("The streams did not begin.")
