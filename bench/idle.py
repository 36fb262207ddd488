"""`bin/bench idle`: measures what workers cost that wait in a poll, and how fast a new run wakes them. With `--pool` it
also counts how many polls of a pool one run causes.
"""

import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from bench.cast import make_pairs
from bench.failure import BenchFailed
from bench.figures import Json, latencies, machine, print_machine, print_table
from bench.http_measure import cpu
from bench.idle_load import WAIT_SECONDS, Taken, Woken, probe, wait_and_wake, within
from bench.load import Load, Window, event
from bench.open_files import allow_files
from bench.stack import Database, Program, Web, database, web
from bench.usage import Cpu

# The variable that tells `bench.counted_polls` its file.
_ASKS = "BENCH_ASKS"
_WAITERS, _WAITERS_OF_POOL = 1000, 500
# The product on its own server, which counts how often waiting polls ask.
_COUNTING = (
    "-m", "gunicorn", "-c", "python:pipedai.server.gunicorn_conf",
    "-k", "pipedai.server.worker.Worker", "bench.counted_polls:application",
)  # fmt: skip
# A poll of a pool's worker asks twice when it begins, and then after about 15 s at the latest, which varies by a fifth.
_ASKS_TO_BEGIN = 2
_RECHECK_SECONDS = 0.8 * 15
# How many files a process may have open besides one for each waiting worker.
_SPARE_FILES = 500
_BEGIN_SECONDS = 120.0
_SETTLE_SECONDS = 0.5


def run(
    *, waiters: int | None, seconds: float, pool: bool = False, say: Callable[[str], None]
) -> Json:
    """Measure with this number of waiting workers, and return the result as JSON. Raises BenchFailed.

    For `seconds` the workers only wait. With `pool` they are the members of one pool.
    """
    waiters = waiters or (_WAITERS_OF_POOL if pool else _WAITERS)
    allow_files(waiters + _SPARE_FILES)
    say("Starting PostgreSQL and the web server…")
    with database() as on, _served(on, pool) as served:
        found = machine(on.one("SHOW server_version")["server_version"])
        say(f"Registering {waiters} workers…")
        pairs = make_pairs(served.port, waiters, pool=pool)
        on.settle()
        stop, wake = event(), event()
        with Load(probe, served.port, pairs[-1], stop) as probing:
            say("Nobody waits…")
            before = _Phase.watch(on, served, seconds)
            with Load(wait_and_wake, served.port, pairs, wake, pool) as waiting:
                say(f"{waiters} workers begin to wait…")
                _wait_until_all_wait(on, waiters, waiting)
                say(f"{waiters} workers wait…")
                idle = _Phase.watch(on, served, seconds)
                say("Runs of the pool are queued in turn…" if pool else "Each gets a run in turn…")
                woke_from = time.monotonic()
                wake.set()
                woken = waiting.result(within=waiters)
                waking = Window(woke_from, time.monotonic())
            stop.set()
            others = probing.result(within=0)
        polls = polls_caused(_asks_file(on).read_text(), woken.taken) if pool else []
    idle_cpu = idle.cpu_per_second(more_than=before)
    return {
        "benchmark": "idle",
        "machine": found,
        "seconds": seconds,
        "waiters": waiters,
        "pool": pool,
        "waitSeconds": WAIT_SECONDS,
        "perWaiter": {
            "webMemoryKb": round((idle.rss - before.rss) / waiters / 1024, 1),
            "webCpuMsPerMinute": round(60_000 * idle_cpu.web / waiters, 2),
            "postgresCpuMsPerMinute": round(60_000 * idle_cpu.postgres / waiters, 2),
        },
        "wakeUp": {
            "created": latencies(woken.created),
            "handedOut": latencies(woken.handed_out),
        },
        "pollsPerRun": {"mean": round(sum(polls) / len(polls), 2), "most": max(polls)}
        if polls
        else None,
        "otherCalls": {
            "nobodyWaits": latencies(within(others, before.window)),
            "allWait": latencies(within(others, idle.window)),
            "eachWakes": latencies(within(others, waking)),
        },
    }


def show(result: Json) -> None:
    """Print the tables of a result."""
    print_machine(result["machine"])
    print()
    each = result["perWaiter"]
    print_table(
        [
            "waiting workers",
            "web memory KB each",
            "web CPU ms each per minute",
            "PostgreSQL CPU ms each per minute",
        ],
        [
            [
                str(result["waiters"]),
                each["webMemoryKb"],
                each["webCpuMsPerMinute"],
                each["postgresCpuMsPerMinute"],
            ]
        ],
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
    if polls := result["pollsPerRun"]:
        print()
        print_table(
            ["polls that one run of the pool causes", "mean", "most"],
            [[f"of {result['waiters']} waiting", polls["mean"], polls["most"]]],
        )


def polls_caused(asks: str, taken: Sequence[Taken]) -> list[int]:
    """Return for each run of a pool how many polls asked the service because of it.

    `asks` is what `bench.counted_polls` has written. Left out are a poll's first two questions, with which it begins,
    and a question that follows the poll's previous one after the time at which each poll asks again. The poll that
    took the run counts even so, since on a busy machine it may have just begun.
    """
    caused = [Counter[str]() for _ in taken]
    begins = [run.asked_at for run in taken]
    asked_at: dict[str, float] = {}
    for line in asks.splitlines():
        moment, worker_id, times = line.split()
        at = float(moment)
        pause, asked_at[worker_id] = at - asked_at.get(worker_id, at), at
        number = bisect(begins, at) - 1
        if number < 0 or int(times) <= _ASKS_TO_BEGIN:
            continue
        if pause < _RECHECK_SECONDS or worker_id == taken[number].worker_id:
            caused[number][worker_id] += 1
    return [
        asked.total() + (run.worker_id not in asked)
        for run, asked in zip(taken, caused, strict=True)
    ]


def _served(on: Database, pool: bool) -> AbstractContextManager[Web]:
    if not pool:
        return web(on, processes=1)
    variables = {_ASKS: str(_asks_file(on))}
    return web(on, processes=1, program=Program(_COUNTING, variables))


def _asks_file(on: Database) -> Path:
    return on.directory / "asks"


class _Phase:
    """A stretch of time: the CPU used in it, and the web server's memory at its end."""

    def __init__(self, window: Window, cpu: Cpu, rss: int) -> None:
        self.window = window
        self.rss = rss
        self._cpu = cpu

    @classmethod
    def watch(cls, on: Database, served: Web, seconds: float) -> "_Phase":
        """Measure for so many seconds."""
        start, before = time.monotonic(), cpu(on, served)
        time.sleep(seconds)
        used = cpu(on, served).since(before)
        return cls(Window(start, time.monotonic()), used, served.rss)

    def cpu_per_second(self, *, more_than: "_Phase") -> Cpu:
        """Return the CPU seconds per second, minus those of another phase."""
        ours, theirs = self.window.seconds, more_than.window.seconds
        return Cpu(
            self._cpu.web / ours - more_than._cpu.web / theirs,
            self._cpu.postgres / ours - more_than._cpu.postgres / theirs,
        )


def _wait_until_all_wait(on: Database, waiters: int, waiting: Load[Woken]) -> None:
    """Wait until the service has taken every worker's poll, which it shows by the workers being online."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    seen = 0
    while seen < waiters:
        waiting.check()
        if time.monotonic() > deadline:
            raise BenchFailed(f"Only {seen} of {waiters} polls were taken up.")
        time.sleep(_SETTLE_SECONDS)
        seen = on.one("SELECT count(*) FROM worker WHERE last_seen_at IS NOT NULL")["count"]
    time.sleep(_SETTLE_SECONDS)
