"""`bin/bench kill`: kills processes with kill -9 while there are runs. In the end the ledger must be right."""

import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

import psycopg

from bench.cast import make_pairs
from bench.failure import BenchFailed
from bench.figures import Json, machine, print_machine, print_table
from bench.kill.client import Client, plan
from bench.kill.processes import Kept, Scheduler, Worker, kill_postgres, kill_web_process
from bench.kill.verdict import Evidence, complaints
from bench.stack import Database, Web, database, web

_WORKERS = 3
_CAPACITY = 2
_WEB_PROCESSES = 2
# Which share of the workers' capacity the runs need: so that a kill finds runs that are held, and queued ones.
_LOAD = 0.6
# The lease is short, so that leases expire during the benchmark: a worker that is away for longer loses its runs.
_LEASE_SECONDS = 6
_SETTLE_SECONDS = 90.0
_TICK_SECONDS = 0.05
K = TypeVar("K", bound=Kept)
# Each round kills all of these, in a random order. A "reporting worker" has an outcome that it has not reported yet.
_ROUND = ("executing worker", "reporting worker", "web", "scheduler", "postgres")
_FOLDERS = {"executing worker": "held", "reporting worker": "outcomes"}
_LONGER_SECONDS = 60.0
_LOOK_SECONDS, _LOOK_PAUSE_SECONDS = 2.0, 0.002

# Makes retries available at once. They would wait for 30 s and longer, when nothing is killed any more.
_HURRY = """
WITH hurried AS (
    UPDATE run SET available_at = statement_timestamp()
    WHERE status = 'queued' AND available_at > statement_timestamp()
        AND queued_at < statement_timestamp() - interval '2 s'
    RETURNING worker_id)
SELECT pg_notify('pipedai', 'changed ' || worker_id) FROM hurried
"""
_UNFINISHED = "SELECT count(*) AS runs FROM run WHERE ended_at IS NULL"


def run(*, runs: int, seconds: float, seed: int | None, say: Callable[[str], None]) -> Json:
    """Kill for `seconds`, judge, and return the result as JSON. Raises BenchFailed if anything is wrong."""
    seed = secrets.randbelow(2**32) if seed is None else seed
    say(f"The seed is {seed}. Starting PostgreSQL, the web server, the scheduler and workers…")
    rng = random.Random(seed)
    with ExitStack() as stack:
        on = stack.enter_context(database(RUN_LEASE_SECONDS=str(_LEASE_SECONDS)))
        served = stack.enter_context(web(on, processes=_WEB_PROCESSES))
        found = machine(on.one("SHOW server_version")["server_version"])
        pairs = make_pairs(served.port, _WORKERS, capacity=_CAPACITY)
        workers = [
            stack.enter_context(_ended(Worker(on, served.port, pair, number, _CAPACITY)))
            for number, pair in enumerate(pairs)
        ]
        scheduler = stack.enter_context(_ended(Scheduler(on)))
        requests = plan(
            rng,
            pairs,
            runs=runs,
            seconds=seconds,
            busy_seconds=_LOAD * _WORKERS * _CAPACITY * seconds / runs,
        )
        client = Client(served.port, pairs[0].api_key, requests)
        siege = _Siege(rng, on, served, workers, scheduler)
        say(f"{runs} runs, and kills for {seconds:g} s…")
        siege.rage(seconds)
        say("Waiting for all runs to end…")
        began = time.monotonic()
        client.join()
        siege.settle()
        settled = time.monotonic() - began
        for process in (*workers, scheduler):
            process.stop()
        evidence = Evidence(on, workers, client.answers)
    wrong = complaints(evidence, requests)
    if wrong:
        raise BenchFailed("\n".join([f"With the seed {seed} this is wrong:", *wrong]))
    return {
        "benchmark": "kill",
        "machine": found,
        "seed": seed,
        "seconds": seconds,
        "runs": runs,
        "kills": dict(siege.kills),
        "requestsRepeated": client.lost_answers,
        **evidence.summary(),
        "settledAfterSeconds": round(settled, 1),
    }


def show(result: Json) -> None:
    """Print the tables of a result."""
    print_machine(result["machine"])
    print()
    print_table(["killed", "times"], [[name, n] for name, n in sorted(result["kills"].items())])
    print()
    told = [name for name in result if name not in {"benchmark", "machine", "kills"}]
    print_table(["what", "figure"], [[name, result[name]] for name in told])
    print("\nEvery run ended once; no outcome was lost, none doubled.")


class _Siege:
    """Kills processes at random, and starts them again."""

    def __init__(
        self,
        rng: random.Random,
        on: Database,
        served: Web,
        workers: Sequence[Worker],
        scheduler: Scheduler,
    ) -> None:
        self.kills: Counter[str] = Counter()
        self._rng = rng
        self._on = on
        self._served = served
        self._workers = workers
        self._scheduler = scheduler
        self._hurry_at = 0.0

    def rage(self, seconds: float) -> None:
        """Kill a process every second or so. On a busy machine it goes on until each kind has been killed once."""
        until = time.monotonic() + seconds
        victims = self._victims()
        while True:
            pause = self._rng.uniform(0.1, 1.3)
            left = until - time.monotonic()
            if pause > left and (left < -_LONGER_SECONDS or not self._goes_on_longer()):
                break
            self._go_on(time.monotonic() + pause)
            victim = next(victims)
            self.kills[victim] += self._kill(victim)
        self._go_on(until)

    def settle(self) -> None:
        """Wait until all runs have ended. Raises BenchFailed if some do not."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            self._go_on(time.monotonic() + 0.2)
            try:
                if self._on.one(_UNFINISHED)["runs"] == 0:
                    return
            except psycopg.OperationalError:
                continue  # it is being started
        left = self._on.all("SELECT * FROM run WHERE ended_at IS NULL")
        raise BenchFailed(f"These runs do not end: {left}")

    def _victims(self) -> Iterator[str]:
        while True:
            yield from self._rng.sample(_ROUND, len(_ROUND))

    def _kill(self, victim: str) -> bool:
        if victim == "web":
            return kill_web_process(self._served, self._rng.randrange(_WEB_PROCESSES))
        if victim == "postgres":
            return kill_postgres(self._on)
        if victim == "scheduler":
            return self._scheduler.kill(away=self._rng.uniform(0, 1))
        worker = self._find(_FOLDERS[victim])
        if worker is None:
            return False
        # Every fourth worker is away for so long that its leases expire.
        long = self._rng.random() < 1 / 4
        return worker.kill(away=self._rng.uniform(0, 1) + (_LEASE_SECONDS + 1 if long else 0))

    def _goes_on_longer(self) -> bool:
        """Whether a kind of process has not been killed yet, and there still are runs during which it can be."""
        if all(self.kills[victim] for victim in _ROUND):
            return False
        try:
            return bool(self._on.one(_UNFINISHED)["runs"])
        except psycopg.OperationalError:
            return True  # it is being started

    def _find(self, folder: str) -> Worker | None:
        """Return a worker that has a file in that folder of its state, or None if none has one for a while."""
        deadline = time.monotonic() + _LOOK_SECONDS
        while time.monotonic() < deadline:
            found = [each for each in self._workers if each.is_there and each.spooled(folder)]
            if found:
                return self._rng.choice(found)
            self._tend()
            time.sleep(_LOOK_PAUSE_SECONDS)
        return None

    def _go_on(self, until: float) -> None:
        while time.monotonic() < until:
            self._tend()
            if time.monotonic() > self._hurry_at:
                self._hurry_at = time.monotonic() + 1
                self._hurry()
            time.sleep(_TICK_SECONDS)

    def _tend(self) -> None:
        for process in (*self._workers, self._scheduler):
            process.tend()

    def _hurry(self) -> None:
        with suppress(psycopg.OperationalError):  # PostgreSQL has been killed and is not back yet
            self._on.execute(_HURRY)


@contextmanager
def _ended(process: K) -> Iterator[K]:
    """End the process at the end, whatever happens."""
    try:
        yield process
    finally:
        process.end()
