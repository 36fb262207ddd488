"""An independent model of the run state machine, written from SPEC §6 and not from the code.

It uses plain objects and no SQL, and has one method for each thing that can happen. A method returns the state that the
API must tell the caller (`Told`), and notes what must be audited and delivered.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

LEASE = timedelta(seconds=180)
GRACE = timedelta(seconds=60)
BACKOFF = [timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10)]
HELD = {"claimed", "running"}
TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}


@dataclass(frozen=True)
class Told:
    """The answer to a caller: the run's state, None for a run that it can't see, and whether the call was refused."""

    status: str | None
    refused: bool = False


MISSING = Told(None)


@dataclass
class ModelWorker:
    """The values of a worker that decide whether it may claim."""

    max_concurrency: int = 1
    disabled: bool = False


@dataclass
class ModelRun:
    """One run. A retry is a run of its own."""

    source: str
    attempt: int
    worker: str | None
    available_at: datetime
    retry_of: "ModelRun | None" = None
    status: str = "queued"
    fault: str | None = None
    claim_id: str | None = None
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    lease: datetime | None = None
    deadline: datetime | None = None
    cancel_requested: bool = False
    ended_by: str | None = None
    late_result: bool = False
    delivered: list[str] = field(default_factory=list)

    def told(self) -> Told:
        return Told(self.status)

    def refused(self) -> Told:
        return Told(self.status, refused=True)


class Model:
    """One trigger with a webhook, its runs, and its workers by name."""

    def __init__(self, *, worker: str, workers: list[str], max_retries: int, timeout: int) -> None:
        self.workers = {name: ModelWorker() for name in workers}
        self.worker: str | None = worker
        self.enabled = True
        self.max_retries = max_retries
        self.timeout = timedelta(seconds=timeout)
        self.runs: list[ModelRun] = []
        self.audited: Counter[str] = Counter()

    # --- people ---

    def queue(self, now: datetime) -> ModelRun | None:
        """Queues a run as an API key would. Returns None if the trigger can't be run."""
        if not self.enabled or self.worker is None:
            return None
        self.audited["run.created"] += 1
        return self._add(ModelRun("api", 1, self.worker, now))

    def cancel(self, run: ModelRun, now: datetime) -> Told:
        if run.status in TERMINAL:
            return run.refused()
        if run.status == "queued":
            run.cancel_requested = True
            self.audited["run.canceled"] += 1
            self._end(run, "canceled", "none", "user", now)
        elif not run.cancel_requested:
            run.cancel_requested = True
            self.audited["run.cancel-requested"] += 1
        return run.told()

    def reassign(self, worker: str | None) -> None:
        self.worker = worker
        for run in self.runs:
            if run.status == "queued":
                run.worker = worker

    # --- the worker ---

    def claim(self, run: ModelRun, worker: str, claim_id: str | None, now: datetime) -> Told:
        if run.worker != worker:
            return MISSING
        if run.status == "claimed" and run.claim_id == claim_id:
            return run.told()
        mine = self.workers[worker]
        held = sum(other.worker == worker and other.status in HELD for other in self.runs)
        free = not mine.disabled and held < mine.max_concurrency
        if run.status != "queued" or run.available_at > now or not free:
            return run.refused()
        run.status, run.claim_id, run.claimed_at = "claimed", claim_id, now
        self._renew(run, now, counted_from_now=True)
        self.audited["run.claimed"] += 1
        return run.told()

    def start(self, run: ModelRun, worker: str, now: datetime) -> Told:
        if run.worker != worker:
            return MISSING
        if run.status == "running":
            return run.told()
        if run.status != "claimed":
            return run.refused()
        run.status, run.started_at = "running", now
        self._renew(run, now, counted_from_now=True)
        self.audited["run.started"] += 1
        return run.told()

    def heartbeat(self, run: ModelRun, worker: str, now: datetime) -> Told:
        if run.worker != worker:
            return MISSING
        if run.status not in HELD:
            return run.refused()
        self._renew(run, now, counted_from_now=False)
        return run.told()

    def complete(
        self,
        run: ModelRun,
        worker: str,
        status: str,
        fault: str | None,
        retry_after: int | None,
        now: datetime,
    ) -> Told:
        if run.worker != worker:
            return MISSING
        settled = "none"
        if status in {"failed", "timed_out"}:
            settled = "infra" if fault == "infra" else "client"
        if run.status == "queued":
            return run.refused()
        if run.ended_by == "worker" and run.status == status:
            return run.told()
        if status == "canceled" and not run.cancel_requested:
            return run.refused()
        if run.status in HELD:
            self.audited["run.canceled" if status == "canceled" else "run.completed"] += 1
            self._end(run, status, settled, "worker", now)
            if self._calls_for_retry(run):
                self._retry(run, now, retry_after)
            return run.told()
        if run.ended_by not in {"lease", "deadline"}:
            return run.refused()
        return self._late(run, status, settled, retry_after, now)

    # --- the server ---

    def expire(self, now: datetime) -> None:
        for run in list(self.runs):
            if run.lease is None or run.deadline is None or min(run.lease, run.deadline) > now:
                continue
            if run.lease <= run.deadline:
                self.audited["run.lost"] += 1
                lost = ("canceled", "none") if run.cancel_requested else ("failed", "infra")
                self._end(run, *lost, "lease", now)
                if self._calls_for_retry(run):
                    self._retry(run, now, None)
            else:
                self.audited["run.timed-out"] += 1
                self._end(run, "timed_out", "client", "deadline", now)

    # --- rules ---

    def retry_of(self, run: ModelRun) -> ModelRun | None:
        return next((other for other in self.runs if other.retry_of is run), None)

    def _late(
        self, run: ModelRun, status: str, fault: str, retry_after: int | None, now: datetime
    ) -> Told:
        retry = self.retry_of(run)
        if retry is not None and retry.claimed_at is not None:
            if not run.late_result:
                run.late_result = True
                self.audited["run.late-result"] += 1
            return run.refused()
        self.audited["run.completed"] += 1
        self._end(run, status, fault, "worker", now)
        if self._calls_for_retry(run):
            if retry is None:
                self._retry(run, now, retry_after)
            elif retry.status == "queued" and retry_after:
                later = now + timedelta(seconds=retry_after)
                retry.available_at = max(retry.available_at, later)
        elif retry is not None and retry.status == "queued":
            retry.status, retry.fault = "canceled", "none"
            retry.ended_at, retry.ended_by = now, "late_result"
        return run.told()

    def _calls_for_retry(self, run: ModelRun) -> bool:
        return (
            run.status in {"failed", "timed_out"}
            and run.fault == "infra"
            and run.attempt <= self.max_retries
            and not run.cancel_requested
        )

    def _retry(self, run: ModelRun, now: datetime, retry_after: int | None) -> None:
        if not self.enabled:
            return
        delay = BACKOFF[min(run.attempt, 3) - 1]
        if retry_after is not None:
            delay = max(delay, timedelta(seconds=retry_after))
        self.audited["run.retried"] += 1
        self._add(ModelRun("retry", run.attempt + 1, self.worker, now + delay, retry_of=run))

    def _end(self, run: ModelRun, status: str, fault: str, by: str, now: datetime) -> None:
        run.status, run.fault, run.ended_by, run.ended_at = status, fault, by, now
        run.lease = run.deadline = None
        run.delivered.append(status)

    def _renew(self, run: ModelRun, now: datetime, *, counted_from_now: bool) -> None:
        run.lease = now + LEASE
        if counted_from_now:
            run.deadline = now + self.timeout + GRACE

    def _add(self, run: ModelRun) -> ModelRun:
        self.runs.append(run)
        return run
