"""Kills processes of every kind at random (kill -9) while there are runs. In the end the ledger must be right."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from psycopg import OperationalError

from bench.figures import Json, machine, print_table
from bench.kill.client import Client, plan
from bench.kill.crew import CAPACITY, WEB_PROCESSES, Crew, crew
from bench.kill.processes import Worker, kill_postgres, kill_web_process
from bench.kill.verdict import Evidence, judge, judge_lost
from testing.probes.budget_use import complaints_about_budgets
from testing.processes.failure import ProcessFailed
from testing.processes.stack import database

_WORKERS = 3
# The lease is short, so that leases expire during the benchmark: a worker that is away for longer loses its runs.
_LEASE_SECONDS = 6
# Which share of the workers' capacity the runs need: so that a kill finds runs that are held, and queued ones.
LOAD = 0.6
# Each round kills all of these, in a random order. A "reporting worker" has an outcome that it has not reported yet. A
# "worker of a pool" executes a run of its pool, and stays away until that run's lease has ended.
VICTIMS = (
    "executing worker", "reporting worker", "worker of a pool", "web", "scheduler", "postgres",
)  # fmt: skip
_FOLDERS = {"executing worker": "held", "reporting worker": "outcomes"}
_LONGER_SECONDS = 60.0
# Makes a budget over all runs of the environment, and one over the runs of one trigger. Both have room for everything.
_BUDGETS = """
INSERT INTO budget (id, environment_id, name, trigger_id, period, timezone, limit_usd, when_reached, notice_at_pct,
    reserve_usd, count_notional, generation)
SELECT gen_random_uuid(), t.environment_id, 'Bench', CASE WHEN n > 1 THEN t.id END, 'month', 'UTC', 1000000, 'hold',
    '{{80,100}}', 0.7 + n, true, 0
FROM trigger t, generate_series(1, 2) n WHERE t.id = '{trigger_id}'
"""
_LOOK_SECONDS, _LOOK_PAUSE_SECONDS = 2.0, 0.002
_TICK_SECONDS = 0.05


def run(*, runs: int, seconds: float, seed: int, say: Callable[[str], None]) -> Json:
    """Kill for `seconds`, judge, and return the result as JSON. Raises ProcessFailed if anything is wrong."""
    say("Starting PostgreSQL, the web server, the scheduler and workers…")
    rng = random.Random(seed)
    with (
        database(RUN_LEASE_SECONDS=str(_LEASE_SECONDS)) as on,
        crew(on, workers=_WORKERS, pooled=True) as all_of_them,
    ):
        found = machine(on)
        busy = LOAD * _WORKERS * CAPACITY * seconds / runs
        on.execute(_BUDGETS.format(trigger_id=all_of_them.pairs[0].trigger_id))
        requests = plan(rng, all_of_them.pairs, runs=runs, seconds=seconds, busy_seconds=busy)
        client = Client(all_of_them.served.port, all_of_them.pairs[0].api_key, requests)
        siege = _Siege(rng, all_of_them)
        say(f"{runs} runs, and kills for {seconds:g} s…")
        siege.rage(seconds)
        say("Waiting for all runs to end…")
        began = time.monotonic()
        client.join()
        all_of_them.settle()
        settled_after = time.monotonic() - began
        all_of_them.stop()
        evidence = Evidence(on, all_of_them.workers, client.answers)
        wrong = complaints_about_budgets(on.all)
        settled = on.one(
            "SELECT count(*) AS runs FROM run_reservation WHERE settled_at IS NOT NULL"
        )
    judge(evidence, requests)
    judge_lost(evidence, set(all_of_them.lost))
    if wrong:
        raise ProcessFailed("\n".join(wrong))
    return {
        "machine": found,
        "seconds": seconds,
        "runs": runs,
        "kills": dict(siege.kills),
        "requestsRepeated": client.lost_answers,
        **evidence.summary(),
        "lostInAPoolAndDoneByAnother": len(all_of_them.lost),
        "reservationsSettled": settled["runs"],
        "settledAfterSeconds": round(settled_after, 1),
    }


def show(result: Json) -> None:
    """Print how often each kind of process was killed."""
    print_table(["killed", "times"], [[name, n] for name, n in sorted(result["kills"].items())])
    print()


class _Siege:
    """Kills processes at random, and starts them again."""

    def __init__(self, rng: random.Random, crew: Crew) -> None:
        self.kills: Counter[str] = Counter()
        self._rng = rng
        self._crew = crew

    def rage(self, seconds: float) -> None:
        """Kill a process every second or so. On a busy machine it goes on until each kind has been killed once."""
        until = time.monotonic() + seconds
        victims = self._victims()
        while True:
            pause = self._rng.uniform(0.1, 1.3)
            left = until - time.monotonic()
            if pause > left and (left < -_LONGER_SECONDS or not self._goes_on_longer()):
                break
            self._crew.go_on(time.monotonic() + pause)
            victim = next(victims)
            self.kills[victim] += self._kill(victim)
        self._crew.go_on(until)

    def _victims(self) -> Iterator[str]:
        while True:
            yield from self._rng.sample(VICTIMS, len(VICTIMS))

    def _kill(self, victim: str) -> bool:
        if victim == "web":
            return kill_web_process(self._crew.served, self._rng.randrange(WEB_PROCESSES))
        if victim == "postgres":
            return kill_postgres(self._crew.on)
        if victim == "scheduler":
            return self._crew.scheduler.kill(away=self._rng.uniform(0, 1))
        if victim == "worker of a pool":
            return self._lose()
        worker = self._find(_FOLDERS[victim])
        if worker is None:
            return False
        # Every fourth worker is away for so long that its leases expire.
        long = self._rng.random() < 1 / 4
        return worker.kill(away=self._rng.uniform(0, 1) + (_LEASE_SECONDS + 1 if long else 0))

    def _lose(self) -> bool:
        """Kill a worker that executes a run of a pool, so that the run's lease ends. Only one at a time is away."""
        deadline = time.monotonic() + _LOOK_SECONDS
        while time.monotonic() < deadline and not any(each.is_lost for each in self._crew.workers):
            with suppress(OperationalError):  # PostgreSQL is away
                held = self._crew.held_of_pools()
                for worker in self._rng.sample(self._crew.workers, len(self._crew.workers)):
                    if worker.is_there and (runs := held & worker.spooled("held").keys()):
                        return self._crew.lose(min(runs), worker)
            self._crew.go_on(time.monotonic() + _TICK_SECONDS)
        return False

    def _goes_on_longer(self) -> bool:
        """Whether a kind of process has not been killed yet, and there still are runs during which it can be."""
        return not all(self.kills[each] for each in VICTIMS) and self._crew.has_unfinished_runs()

    def _find(self, folder: str) -> Worker | None:
        """Return a worker that has a file in that folder of its state, or None if none has one for a while."""
        deadline = time.monotonic() + _LOOK_SECONDS
        while time.monotonic() < deadline:
            found = [each for each in self._crew.workers if each.is_there and each.spooled(folder)]
            if found:
                return self._rng.choice(found)
            self._crew.tend()
            time.sleep(_LOOK_PAUSE_SECONDS)
        return None
