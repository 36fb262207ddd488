"""Takes away the database, all web processes and the scheduler in turn, while workers hold runs.

No healthy worker's run may be given up. A worker that dies meanwhile must still be found.
"""

import math
import random
import time
from collections.abc import Callable, Sequence

from bench.figures import Json, machine, print_table
from bench.kill.client import Client, Request
from bench.kill.crew import CAPACITY, LEASE_SECONDS, Crew, crew
from bench.kill.verdict import Evidence, judge, judge_given_up
from testing.processes.failure import ProcessFailed
from testing.processes.postgres_nodes import Nodes, nodes

PARTS = ("database", "web", "scheduler")
_HEALTHY = 3
# Runs of healthy workers go on for so long after an outage that the scheduler has the time to give them up, which would
# be wrong.
_AFTER_SECONDS = LEASE_SECONDS / 2 + 4
# The run of the worker that dies is short, because its retry takes as long again.
_DOOMED_SECONDS = 4.0
_KILL_AFTER_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2


def run(*, outages: Sequence[float], seed: int, say: Callable[[str], None]) -> Json:
    """Take each part away for so many seconds, once for each of `outages`, judge, and return JSON.

    Raises ProcessFailed if anything is wrong.
    """
    say("Starting PostgreSQL, the web server, the scheduler and workers…")
    plan = [(part, seconds) for part in PARTS for seconds in outages]
    random.Random(seed).shuffle(plan)
    with (
        nodes(1, RUN_LEASE_SECONDS=str(LEASE_SECONDS)) as on,
        crew(on, workers=_HEALTHY + len(plan)) as all_of_them,
    ):
        found = machine(on)
        cases = [
            _Case(on, all_of_them, part, seconds, doomed=_HEALTHY + number)
            for number, (part, seconds) in enumerate(plan)
        ]
        results = []
        for case in cases:
            say(f"{case.part} away for {case.seconds:g} s…")
            results.append(case.run())
        say("Waiting for the dead workers' runs to end…")
        for worker in all_of_them.workers[_HEALTHY:]:
            worker.come_back()
        all_of_them.settle()
        all_of_them.stop()
        answers = {key: run_id for case in cases for key, run_id in case.answers.items()}
        evidence = Evidence(on, all_of_them.workers, answers)
    judge(evidence, [request for case in cases for request in case.requests])
    judge_given_up(evidence, {case.doomed_run for case in cases})
    return {
        "machine": found,
        "leaseSeconds": LEASE_SECONDS,
        "runs": len(answers),
        "outages": results,
        **evidence.summary(),
    }


def show(result: Json) -> None:
    """Print a line for each outage, in seconds. The dead worker's run was found so long after the outage's end."""
    heads = ["away", "seconds", "served again after", "dead worker's run found after"]
    names = ["part", "seconds", "untilServed", "untilFound"]
    print_table(heads, [[each[name] for name in names] for each in result["outages"]])
    print()


class _Case:
    """One outage: its runs, and what came of them. `doomed` is the number of the worker that dies and stays away."""

    def __init__(self, on: Nodes, crew: Crew, part: str, seconds: float, *, doomed: int) -> None:
        self.part = part
        self.answers: dict[str, str] = {}
        self._on = on
        self._crew = crew
        self.seconds = seconds
        self._doomed = crew.workers[doomed]
        long = {"seconds": seconds + _AFTER_SECONDS, "exitCode": 0}
        self.requests = [
            Request(0.0, f"{part}-{seconds:g}-{number}", pair.trigger_id, long)
            for number, pair in enumerate(crew.pairs[:_HEALTHY] * CAPACITY)
        ]
        short = {"seconds": _DOOMED_SECONDS, "exitCode": 0}
        self.requests.append(
            Request(0.0, f"{part}-{seconds:g}-x", crew.pairs[doomed].trigger_id, short)
        )

    @property
    def doomed_run(self) -> str:
        """The run of the worker that dies."""
        return self.answers[self.requests[-1].key]

    def run(self) -> Json:
        """Begin the runs, and kill a worker during the outage. Return when all others have ended theirs."""
        client = Client(self._crew.served.port, self._crew.pairs[0].api_key, self.requests)
        client.join()
        self.answers = client.answers
        self._wait("take its runs", len(self.requests), "status = 'running'")
        # A worker may start a run with its claim, before its program runs.
        self._until("execute them", lambda: self._doomed.has_begun(self.doomed_run))
        began = time.monotonic()
        self._take_away()
        self._crew.go_on(began + _KILL_AFTER_SECONDS)
        self._doomed.kill(away=math.inf)
        self._crew.go_on(began + self.seconds)
        self._give_back()
        served = time.monotonic()
        self._wait("find the dead worker", 1, "ended_by = 'lease'")
        found = time.monotonic()
        self._wait("end its runs", len(self.requests), "ended_at IS NOT NULL")
        self._check_healthy()
        return {
            "part": self.part,
            "seconds": self.seconds,
            "untilServed": round(served - began, 1),
            "untilFound": round(found - served, 1),
        }

    def _check_healthy(self) -> None:
        """Raise ProcessFailed if a healthy worker's run was retried: it was given up, though its worker lived."""
        ids = ",".join(run_id for run_id in self.answers.values() if run_id != self.doomed_run)
        statement = f"SELECT count(*) FROM run WHERE retry_of_id = ANY('{{{ids}}}'::uuid[])"
        if given_up := self._on.one(statement)["count"]:
            raise ProcessFailed(
                f"{self.part} away for {self.seconds:g} s: {given_up} healthy runs were given up."
            )

    def _take_away(self) -> None:
        if self.part == "database":
            self._on.primary.kill()
        elif self.part == "web":
            self._crew.served.kill()
        else:
            self._crew.scheduler.kill(away=self.seconds)

    def _give_back(self) -> None:
        if self.part == "database":
            self._on.primary.start()
        elif self.part == "web":
            self._crew.served.start_again()
            self._crew.served.wait_until_ready()

    def _wait(self, what: str, count: int, condition: str) -> None:
        """Wait until this many of the case's runs fulfil the condition."""
        ids = ",".join(self.answers.values())
        statement = f"SELECT count(*) FROM run WHERE id = ANY('{{{ids}}}'::uuid[]) AND {condition}"
        self._until(what, lambda: self._crew.count(statement) >= count)

    def _until(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.part} away for {self.seconds:g} s: it did not {what}.")
            self._crew.go_on(time.monotonic() + _PAUSE_SECONDS)
