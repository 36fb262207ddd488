"""Signed events from outside at a steady rate, from the request to the queued run, beside lifecycles.

Sources send events, each of which queues a run. It fails if one is refused, or answered without a run.
"""

import argparse
import hmac
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from threading import local

from bench.cast import Customer, make_pairs
from bench.figures import Json, latencies, machine, print_table
from bench.http import BASE_PATH, Connection
from bench.lifecycle import drive
from bench.load import Load, event, measure
from bench.options import count, seconds
from testing.processes.failure import ProcessFailed
from testing.processes.stack import HOST, database, web

IN_ALL = ("",)
# A source may send 50 events a second.
_RATE_OF_A_SOURCE = 25
# How many requests may be on their way at once.
_THREADS = 64
_QUEUED = "SELECT count(*) FROM run WHERE source = 'event'"
_SECRET = "a-secret-of-the-benchmark"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=count, default=100, help="events a second")
    parser.add_argument("--clients", type=count, default=4, help="that run lifecycles beside it")
    parser.add_argument("--seconds", type=seconds, default=60.0, help="of sending")
    parser.add_argument("--web-processes", type=count, default=1, help="of the web server")


def run(
    *, rate: int, clients: int, seconds: float, web_processes: int, say: Callable[[str], None]
) -> Json:
    """Send `rate` events a second beside lifecycles. Raises ProcessFailed if an answered event has no run."""
    say("Starting PostgreSQL and the web server…")
    with database() as on, web(on, processes=web_processes) as served:
        found = machine(on)
        pairs = make_pairs(served.port, clients)
        sources = _make_sources(served.port, -(-rate // _RATE_OF_A_SOURCE))
        say("Lifecycles alone…")
        alone = measure(drive, on, served, pairs, seconds)
        say(f"Beside {rate} events a second…")
        stop = event()
        with Load(_send, served.port, sources, rate, stop) as sending:
            beside = measure(drive, on, served, pairs, seconds)
            stop.set()
            sent = sending.result(within=0)
        taken = [took for took, failure in sent if failure is None]
        queued = on.one(_QUEUED)["count"]
    if queued != len(taken):
        raise ProcessFailed(f"{len(taken)} events were answered 202, and {queued} runs queued.")
    return {
        "machine": found,
        "events": latencies(taken),
        "failures": dict(Counter(failure for _, failure in sent if failure).most_common(5)),
        "alone": alone,
        "beside": beside,
    }


def show(result: Json) -> None:
    """Print the tables of a result. Raises ProcessFailed if an event was refused."""
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
        raise ProcessFailed(f"Events failed: {result['failures']}.")


def _send(
    port: int, sources: Sequence[str], rate: int, stop: Event
) -> list[tuple[float, str | None]]:
    """Send events at the rate until `stop` is set. Return how many seconds after its moment each was answered, and why
    it failed if it did. Each is due at its moment, even if others wait.
    """
    kept = local()

    def one(due: float, sent: bytes) -> tuple[float, str | None]:
        failure = None
        try:
            if not hasattr(kept, "connection"):
                kept.connection = Connection(port)
            answer = kept.connection.exchange(sent)
            failure = None if answer.status == 202 else f"{answer.status} {answer.body[:100]!r}"
        except (OSError, ProcessFailed) as error:
            failure = str(error) or type(error).__name__
            vars(kept).pop("connection", None)
        return time.monotonic() - due, failure

    requests = zip(*[_requests(each) for each in sources], strict=True)
    begin = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as threads:
        answers = []
        for number, sent in enumerate(itertools.chain.from_iterable(requests)):
            due = begin + number / rate
            if stop.wait(max(0.0, due - time.monotonic())):
                break
            answers.append(threads.submit(one, due, sent))
        return [each.result() for each in answers]


def _requests(source_id: str) -> Iterator[bytes]:
    """Yield the requests of one event after another, none like another, signed as GitHub does."""
    for number in itertools.count():
        # About as long as what GitHub sends of an issue's comment.
        body = json.dumps({"action": "created", "number": number, "comment": "x" * 4000}).encode()
        head = (
            f"POST {BASE_PATH}/hooks/{source_id} HTTP/1.1\r\nHost: {HOST}\r\n"
            f"X-GitHub-Event: issue_comment\r\nX-Hub-Signature-256: sha256="
            f"{hmac.digest(_SECRET.encode(), body, 'sha256').hex()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


def _make_sources(port: int, count: int) -> list[str]:
    """Make sources, each with a trigger that listens to it, in an environment of its own: nobody takes the queued runs,
    and where thousands wait, requests that queue one more take turns. Returns their ids.
    """
    sources = []
    with Connection(port) as connection:
        customer = Customer(connection)
        for number in range(count):
            environment_id, key = customer.environment(f"events-{number}")
            path = f"/environments/{environment_id}/sources"
            source = customer.post(path, name="Bench", scheme="github", secrets=[_SECRET])["id"]
            customer.pair(environment_id, key, f"host-{number}", on=[{"sourceId": source}])
            sources.append(source)
    return sources
