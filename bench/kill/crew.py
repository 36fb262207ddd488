"""What the kills are about: a web server, workers and a scheduler on one database, which are started again."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg

from bench.cast import Pair, make_pairs
from bench.kill.processes import Scheduler, Worker
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database, Web, web

# With this lease no outage may end a run. A shorter one is not safe: an outage of up to 2 s counts as none (see
# triggers.heartbeats), and the worker's heartbeats before and after it are up to a third of the lease away.
LEASE_SECONDS = 14
CAPACITY = 2
WEB_PROCESSES = 2
_SETTLE_SECONDS = 90.0
_TICK_SECONDS = 0.05
_LOST_SECONDS = 20.0

# Makes retries available at once. They would wait for 30 s and longer, when nothing is killed any more.
_HURRY = """
WITH hurried AS (
    UPDATE run SET available_at = statement_timestamp(),
        pool_from = CASE WHEN pool_id IS NOT NULL THEN statement_timestamp() END
    WHERE status = 'queued' AND available_at > statement_timestamp()
        AND queued_at < statement_timestamp() - interval '2 s'
    RETURNING worker_id, pool_id)
SELECT pg_notify('pipedai', coalesce('pool ' || pool_id || ' 1', 'changed ' || worker_id)) FROM hurried
"""
# Makes one pool of all workers. Of every three triggers one leaves its runs to the pool, and one to its worker first
# and then to the pool.
_POOL = """
INSERT INTO pool (id, environment_id, name, description)
SELECT uuidv7(), environment_id, 'Bench', '' FROM worker GROUP BY environment_id;
INSERT INTO pool_member (pool_id, worker_id, environment_id)
SELECT p.id, w.id, p.environment_id FROM pool p JOIN worker w ON w.environment_id = p.environment_id;
UPDATE trigger t SET pool_id = p.id, worker_id = CASE WHEN nth % 3 = 2 THEN t.worker_id END
FROM pool p, (SELECT id, row_number() OVER (ORDER BY id) AS nth FROM trigger) numbered
WHERE p.environment_id = t.environment_id AND numbered.id = t.id AND nth % 3 > 0;
"""
_UNFINISHED = "SELECT count(*) AS runs FROM run WHERE ended_at IS NULL"
_HELD_OF_POOLS = """
SELECT id::text FROM run WHERE pool_id IS NOT NULL AND slot IS NOT NULL AND ended_at IS NULL
"""


class Crew:
    """All processes of the service on a database, with workers that execute runs."""

    def __init__(
        self,
        on: Database,
        served: Web,
        pairs: list[Pair],
        workers: list[Worker],
        scheduler: Scheduler,
    ) -> None:
        self.on = on
        self.served = served
        self.pairs = pairs
        self.workers = workers
        self.scheduler = scheduler
        # The runs of pools whose worker was killed and stays away until their lease has ended, with that worker.
        self.lost: dict[str, Worker] = {}
        self._lost_at = 0.0
        self._hurry_at = 0.0
        self._session = on.session()

    def tend(self) -> None:
        """Start each worker and the scheduler again if it has been away for long enough."""
        for process in (*self.workers, self.scheduler):
            process.tend()

    def go_on(self, until: float) -> None:
        """Tend all processes, and let retries begin early, until this moment of time.monotonic()."""
        while time.monotonic() < until:
            self.tend()
            if time.monotonic() > self._hurry_at:
                self._hurry_at = time.monotonic() + 1
                with suppress(psycopg.OperationalError):  # PostgreSQL is away
                    self._rows(_HURRY)
                    self._bring_back(self.held_of_pools())
            time.sleep(_TICK_SECONDS)

    def lose(self, run_id: str, worker: Worker) -> bool:
        """Kill a worker that executes this run of a pool, and keep it away until the run has ended without it, or for
        _LOST_SECONDS: after an outage no lease ends for a minute.

        Returns False if the worker has nevertheless an outcome of the run, or if PostgreSQL is away; it is then started
        again. Raises ProcessFailed if the worker ended by itself.
        """
        if not worker.kill(away=math.inf):
            return False
        self._lost_at = time.monotonic()
        try:
            if run_id in self.held_of_pools() and run_id not in worker.reached:
                self.lost[run_id] = worker
                return True
        except psycopg.OperationalError:
            pass
        worker.come_back()
        return False

    def held_of_pools(self) -> set[str]:
        """Return the runs of pools that workers hold. Raises OperationalError if PostgreSQL is away."""
        return {row["id"] for row in self._rows(_HELD_OF_POOLS)}

    def _rows(self, statement: str) -> list[dict[str, Any]]:
        """Execute a statement in a session that stays open until PostgreSQL is killed, and return its rows.

        Raises OperationalError if PostgreSQL is away, or has been killed since the last statement.
        """
        if self._session.closed:
            self._session = self.on.session()
        return self._session.execute(statement).fetchall()

    def _bring_back(self, held: set[str]) -> None:
        """Let the worker come back that was to lose a run, if the run is not among those that are `held`."""
        is_late = time.monotonic() > self._lost_at + _LOST_SECONDS
        for run_id, worker in self.lost.items():
            if worker.is_lost and (is_late or run_id not in held):
                worker.come_back()

    def has_unfinished_runs(self) -> bool:
        """Whether a run has not ended yet, or nobody can tell because PostgreSQL is away."""
        try:
            return bool(self._rows(_UNFINISHED)[0]["runs"])
        except psycopg.OperationalError:
            return True

    def count(self, statement: str) -> int:
        """Return what a query counts, or 0 while PostgreSQL is away. It opens no session, so it may be called often."""
        try:
            return int(self._rows(statement)[0]["count"])
        except psycopg.OperationalError:
            return 0

    def settle(self) -> None:
        """Wait until all runs have ended. Raises ProcessFailed if some do not."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            self.go_on(time.monotonic() + 0.2)
            if not self.has_unfinished_runs():
                return
        left = self.on.all("SELECT * FROM run WHERE ended_at IS NULL")
        raise ProcessFailed(f"These runs do not end: {left}")

    def stop(self) -> None:
        """Stop workers and scheduler. Raises ProcessFailed if one does not stop at SIGTERM."""
        for process in (*self.workers, self.scheduler):
            process.stop()
        self._session.close()


@contextmanager
def crew(on: Database, *, workers: int, pooled: bool = False) -> Iterator[Crew]:
    """Start a web server, this number of workers and a scheduler. End them all at the end, whatever happens.

    If `pooled`, any worker may take the runs of some of the triggers.
    """
    with ExitStack() as stack:
        served = stack.enter_context(web(on, processes=WEB_PROCESSES))
        pairs = make_pairs(served.port, workers, capacity=CAPACITY)
        if pooled:
            on.execute(_POOL)
        started = []
        for number, pair in enumerate(pairs):
            started.append(Worker(on, served.port, pair, number, CAPACITY))
            stack.callback(started[-1].end)
        scheduler = Scheduler(on)
        stack.callback(scheduler.end)
        yield Crew(on, served, pairs, started, scheduler)
