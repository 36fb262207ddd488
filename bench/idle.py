"""Workers that wait in a poll: what each costs, and how fast a new run wakes it.

They wait in poll?wait=30 on one web process, then each gets a run in turn, while another client reads a trigger.
"""

import argparse
import queue
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from typing import Any

from bench.cast import Pair, make_pairs
from bench.figures import Json, latencies, machine, print_table
from bench.http import Answer, Connection, check, request
from bench.load import Cpu, Load, Window, allow_files, event
from bench.options import count, seconds
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database, Web, database, web

IN_ALL = ("", "--waiters 4000")
_WAIT_SECONDS = 30
_STACK_BYTES = 256 * 1024
# How many files a process may have open besides one for each waiting worker.
_SPARE_FILES = 500
_BEGIN_SECONDS, _WAKE_SECONDS, _SETTLE_SECONDS = 120.0, 60.0, 0.5
# The pause between two requests of the client that calls while workers wait.
_PROBE_PAUSE_SECONDS = 0.05


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--waiters", type=count, default=1000, help="workers")
    parser.add_argument("--seconds", type=seconds, default=30.0, help="of nothing but waiting")


def run(*, waiters: int, seconds: float, say: Callable[[str], None]) -> Json:
    """Measure with this number of waiting workers. For `seconds` they only wait. Raises ProcessFailed."""
    allow_files(waiters + _SPARE_FILES)
    say("Starting PostgreSQL and the web server…")
    with database() as on, web(on, processes=1) as served:
        found = machine(on)
        say(f"Registering {waiters} workers…")
        pairs = make_pairs(served.port, waiters)
        on.settle()
        stop, wake = event(), event()
        with Load(_probe, served.port, pairs[-1], stop) as probing:
            say("Nobody waits…")
            before = _Phase(on, served, seconds)
            with Load(_wait_and_wake, served.port, pairs, wake) as waiting:
                say(f"{waiters} workers begin to wait…")
                _wait_until_all_wait(on, waiters, waiting)
                say(f"{waiters} workers wait…")
                idle = _Phase(on, served, seconds)
                say("Each gets a run in turn…")
                woke_from = time.monotonic()
                wake.set()
                created, handed_out = waiting.result(within=waiters)
                waking = Window(woke_from, time.monotonic())
            stop.set()
            others = probing.result(within=0)
    windows = {"nobodyWaits": before.window, "allWait": idle.window, "eachWakes": waking}
    more = {
        name: getattr(idle.cpu, name) / idle.window.seconds
        - getattr(before.cpu, name) / before.window.seconds
        for name in ("web", "postgres")
    }
    return {
        "machine": found,
        "waitSeconds": _WAIT_SECONDS,
        "perWaiter": {
            "webMemoryKb": round((idle.rss - before.rss) / waiters / 1024, 1),
            "webCpuMsPerMinute": round(60_000 * more["web"] / waiters, 2),
            "postgresCpuMsPerMinute": round(60_000 * more["postgres"] / waiters, 2),
        },
        "wakeUp": {"created": latencies(created), "handedOut": latencies(handed_out)},
        "otherCalls": {
            name: latencies([took for began, took in others if began in window])
            for name, window in windows.items()
        },
    }


def show(result: Json) -> None:
    each = result["perWaiter"]
    cpu = ("web CPU ms each per minute", "PostgreSQL CPU ms each per minute")
    print_table(
        ["waiting workers", "web memory KB each", *cpu],
        [[result["waiters"], *each.values()]],
    )
    print()
    wake_up, others = result["wakeUp"], result["otherCalls"]
    rows = {
        "a run is queued: its answer": wake_up["created"],
        "a run is queued: its worker has it": wake_up["handedOut"],
        "another call, while nobody waits": others["nobodyWaits"],
        "another call, while all wait": others["allWait"],
        "another call, while each wakes in turn": others["eachWakes"],
    }
    print_table(
        ["latency", "count", "p50 ms", "p99 ms"],
        [[name, at["count"], at["p50Ms"], at["p99Ms"]] for name, at in rows.items()],
    )


class _Phase:
    """A stretch of time: the CPU used in it, and the web server's memory at its end."""

    def __init__(self, on: Database, served: Web, seconds: float) -> None:
        start, before = time.monotonic(), Cpu.now(on, served)
        time.sleep(seconds)
        self.cpu = Cpu.now(on, served).since(before)
        self.window = Window(start, time.monotonic())
        self.rss = served.rss


def _wait_until_all_wait(on: Database, waiters: int, waiting: Load[Any]) -> None:
    """Wait until the service has taken every worker's poll, which it shows by the workers being online."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    seen = 0
    while seen < waiters:
        waiting.check()
        if time.monotonic() > deadline:
            raise ProcessFailed(f"Only {seen} of {waiters} polls were taken up.")
        time.sleep(_SETTLE_SECONDS)
        seen = on.one("SELECT count(*) FROM worker WHERE last_seen_at IS NOT NULL")["count"]
    time.sleep(_SETTLE_SECONDS)


def _probe(port: int, pair: Pair, stop: Event) -> list[tuple[float, float]]:
    """Read a trigger again and again until `stop` is set. Return when each read began, and its seconds."""
    sent = request("GET", f"/triggers/{pair.trigger_id}", token=pair.api_key)
    times = []
    with Connection(port) as connection:
        while not stop.is_set():
            began = time.monotonic()
            check(sent, connection.exchange(sent))
            times.append((began, time.monotonic() - began))
            stop.wait(_PROBE_PAUSE_SECONDS)
    return times


def _wait_and_wake(
    port: int, pairs: Sequence[Pair], wake: Event
) -> tuple[list[float], list[float]]:
    """Let the pairs' workers wait in polls, each in a thread. Once `wake` is set, queue a run for each in turn.

    Return how many seconds after the request for each run it was answered, and its worker had the run. A worker that
    gets a run claims it, completes it and polls again.
    """
    finished: queue.Queue[tuple[str, float] | ProcessFailed] = queue.Queue()
    threading.stack_size(_STACK_BYTES)
    for pair in pairs:
        threading.Thread(target=_work, args=(port, pair, finished), daemon=True).start()
    while not wake.wait(_SETTLE_SECONDS):
        if not finished.empty():
            raise ProcessFailed(f"A worker did not wait: {finished.get()}")
    created, handed_out = [], []
    with Connection(port) as connection:
        for pair in pairs:
            began = time.monotonic()
            answer = connection.call("POST", f"/triggers/{pair.trigger_id}/run", token=pair.api_key)
            created.append(time.monotonic() - began)
            try:
                done = finished.get(timeout=_WAKE_SECONDS)
            except queue.Empty:
                raise ProcessFailed(f"No worker did a run in {_WAKE_SECONDS:.0f} s.") from None
            if isinstance(done, ProcessFailed):
                raise done
            if done[0] != answer.json()["id"]:
                raise ProcessFailed(
                    f"Run {answer.json()['id']} was queued, and {done[0]} was done."
                )
            handed_out.append(done[1] - began)
    return created, handed_out


def _work(
    port: int, pair: Pair, finished: "queue.Queue[tuple[str, float] | ProcessFailed]"
) -> None:
    """Poll again and again, execute the runs that come, and put each into `finished` with the time when it came."""

    def call(method: str, path: str, body: object = None) -> Answer:
        path = f"/workers/{pair.worker_id}{path}"
        return connection.call(method, path, token=pair.worker_token, body=body)

    try:
        with Connection(port, timeout=2 * _WAIT_SECONDS) as connection:
            while True:
                for run in call("GET", f"/poll?wait={_WAIT_SECONDS}").json()["runs"]:
                    came = time.monotonic()
                    call("POST", f"/runs/{run['id']}/claim", {"claimId": "bench"})
                    call("POST", f"/runs/{run['id']}/complete", {"status": "succeeded"})
                    finished.put((run["id"], came))
    except (ProcessFailed, OSError) as error:
        finished.put(ProcessFailed(str(error) or type(error).__name__))
