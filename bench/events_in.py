"""`bin/bench events-in`: signed events at a steady rate, beside lifecycles; from the request to the queued run."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event

from bench.abuse.calling import Calls
from bench.abuse.life import keep_time
from bench.abuse.timed import Timed
from bench.cast import Customer, make_pairs
from bench.event_calls import Source, make_source
from bench.failure import BenchFailed
from bench.figures import Json, latencies, machine, print_machine, print_table
from bench.http_client import Connection
from bench.http_measure import drive_all, lifecycle_figures
from bench.lifecycle_load import drive
from bench.load import Load, event
from bench.stack import database, web

# A source may send 50 events a second.
_RATE_OF_A_SOURCE = 25
_LOOK_SECONDS = 0.05
_QUEUED = "SELECT count(*) FROM run WHERE source = 'event'"


def run(
    *, rate: int, clients: int, seconds: float, web_processes: int, say: Callable[[str], None]
) -> Json:
    """Send `rate` events a second beside lifecycles of `clients`. Raises BenchFailed if an answered event has no
    run.
    """
    say("Starting PostgreSQL and the web server…")
    with database() as on, web(on, processes=web_processes) as served:
        found = machine(on.one("SHOW server_version")["server_version"])
        pairs = make_pairs(served.port, clients)
        sources = _make_sources(served.port, -(-rate // _RATE_OF_A_SOURCE))
        say("Lifecycles alone…")
        on.settle()
        alone = lifecycle_figures(drive_all(drive, on, served, pairs, seconds), seconds)
        say(f"Beside {rate} events a second…")
        on.settle()
        stop = event()
        with Load(send, served.port, sources, rate, stop) as sending:
            beside = lifecycle_figures(drive_all(drive, on, served, pairs, seconds), seconds)
            stop.set()
            sent = sending.result(within=0)
        taken = [each for each in sent if each.failure is None]
        queued = on.one(_QUEUED)["count"]
    if queued != len(taken):
        raise BenchFailed(f"{len(taken)} events were answered 202, and {queued} runs queued.")
    return {
        "benchmark": "events-in",
        "machine": found,
        "seconds": seconds,
        "webProcesses": web_processes,
        "clients": clients,
        "rate": rate,
        "events": latencies([each.seconds for each in taken]),
        "failures": dict(Counter(each.failure for each in sent if each.failure).most_common(5)),
        "alone": alone,
        "beside": beside,
    }


def show(result: Json) -> None:
    """Print the tables of a result. Raises BenchFailed if an event was refused."""
    print_machine(result["machine"])
    print()
    events = result["events"]
    print_table(
        ["events a second", "events", "request to queued run, p50 ms", "p99 ms"],
        [[result["rate"], events["count"], events["p50Ms"], events["p99Ms"]]],
    )
    print()
    rows = [
        [name, each["lifecyclesPerSecond"], each["lifecycle"]["p50Ms"], each["lifecycle"]["p99Ms"]]
        for name, each in (("alone", result["alone"]), ("beside events", result["beside"]))
    ]
    print_table([f"lifecycles of {result['clients']} clients", "per s", "p50 ms", "p99 ms"], rows)
    if result["failures"]:
        raise BenchFailed(f"Events failed: {result['failures']}.")


def send(port: int, sources: Sequence[Source], rate: int, stop: Event) -> list[Timed]:
    """Send events at the rate until `stop` is set. Each is due at its moment, even if others wait."""
    return asyncio.run(_send(port, sources, rate, stop))


async def _send(port: int, sources: Sequence[Source], rate: int, stop: Event) -> list[Timed]:
    calls = Calls(port)
    requests = itertools.cycle([source.requests() for source in sources])

    async def one(due: float) -> None:
        await calls.call("event", due, next(next(requests)))

    acts: set[asyncio.Task[None]] = set()
    beat = asyncio.create_task(keep_time(one, time.monotonic(), 1 / rate, acts))
    while not stop.is_set():
        await asyncio.sleep(_LOOK_SECONDS)
    beat.cancel()
    await asyncio.gather(*acts, beat, return_exceptions=True)
    return calls.timed


def _make_sources(port: int, count: int) -> list[Source]:
    """Make sources, each with a trigger that listens to it, in an environment of its own: nobody takes the queued runs,
    and where thousands wait, requests that queue one more take turns.
    """
    sources = []
    with Connection(port) as connection:
        customer = Customer(connection)
        for number in range(count):
            environment_id, key = customer.environment(f"events-{number}")
            source = make_source(customer, environment_id)
            customer.pair(environment_id, key, f"host-{number}", on=[{"sourceId": source.id}])
            sources.append(source)
    return sources
