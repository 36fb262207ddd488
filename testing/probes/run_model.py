"""An independent model of the run state machine, written from docs/run-lifecycle.md and API.md and not from the code.

It uses plain objects and no SQL, and has one method for each thing that can happen. A method returns the state that the
API must tell the caller (`Told`), and notes what must be audited and delivered.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

LEASE = timedelta(seconds=180)
GRACE = timedelta(seconds=60)
ONLINE = timedelta(seconds=180)
RESUMABLE = timedelta(hours=1)
LIMIT_RETRIES = 50
MAX_SPELLS = 20
BACKOFF = [timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10)]
HELD = {"claimed", "running"}
UNHELD = {"queued", "waiting"}
ENDED_UNHELD = {"user", "approval_expired", "approval_unreachable"}
TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}


@dataclass(frozen=True)
class Told:
    """The answer to a caller: the run's state, None for a run that it can't see, and whether the call was refused."""

    status: str | None
    refused: bool = False


MISSING = Told(None)
# What stands for the state in a refusal about an approval, which does not tell the run's.
APPROVAL = "approval"


@dataclass
class ModelWorker:
    """The values of a worker that decide whether it may claim."""

    max_concurrency: int = 1
    disabled: bool = False
    account: str | None = None
    limited_until: datetime | None = None
    last_seen: datetime | None = None

    def capacity(self, now: datetime) -> int:
        limited = self.limited_until is not None and self.limited_until > now
        return 0 if self.disabled or limited else self.max_concurrency

    def is_ready(self, now: datetime) -> bool:
        """Whether the worker could take a run if it had room."""
        online = self.last_seen is not None and self.last_seen > now - ONLINE
        return online and self.capacity(now) > 0


@dataclass
class ModelRun:
    """One run. A retry is a run of its own."""

    source: str
    attempt: int
    worker: str | None
    available_at: datetime
    retry_of: "ModelRun | None" = None
    in_pool: bool = False
    pool_from: datetime | None = None
    avoided: str | None = None
    start_deadline: datetime | None = None
    resume_until: datetime | None = None
    had_effects: bool = False
    limit_retries: int = 0
    at_limit: bool = False
    trigger_slot: int | None = None
    session: str | None = None
    effects: int | None = None  # calls that may have changed something; None if none were counted
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
    spells: int = 0
    active: timedelta = timedelta(0)
    cost: int | None = None
    earlier_effects: int | None = None
    asked: list[str] = field(
        default_factory=list
    )  # what became of each question, the first one first
    spent: bool = False  # whether the last approval was used
    delivered: list[str] = field(default_factory=list)

    def told(self) -> Told:
        return Told(self.status)

    def refused(self) -> Told:
        return Told(self.status, refused=True)

    def is_held_by(self, worker: str, claim_id: str) -> bool:
        return (self.worker, self.claim_id) == (worker, claim_id) and self.status in HELD


@dataclass(kw_only=True)
class Model:
    """One trigger with a webhook, its runs, its workers by name, and its one pool with these `members`."""

    workers: dict[str, ModelWorker]
    members: set[str]
    worker: str | None
    has_pool: bool
    max_retries: int
    timeout: timedelta
    prefer: timedelta
    start_deadline: timedelta | None = None
    decision_time: timedelta = timedelta(days=1)
    max_concurrent: int | None = None
    resumes: bool = False
    enabled: bool = True
    paused: bool = False
    runs: list[ModelRun] = field(default_factory=list)
    audited: Counter[str] = field(default_factory=Counter)

    # --- people ---

    def queue(self, now: datetime) -> ModelRun | None:
        """Queues a run as an API key would. Returns None if the trigger can't be run."""
        if not self.enabled or self.paused or (self.worker is None and not self.has_pool):
            return None
        self.audited["run.created"] += 1
        run = ModelRun("api", 1, self.worker, now)
        run.in_pool, run.pool_from = self.has_pool, self._pool_from(now, now)
        return self._add(run)

    def cancel(self, run: ModelRun, now: datetime) -> Told:
        if run.status in TERMINAL:
            return run.refused()
        if run.status in UNHELD:
            run.cancel_requested = True
            self.audited["run.canceled"] += 1
            self._end_unheld(run, "canceled", "none", "user", now)
        elif not run.cancel_requested:
            run.cancel_requested = True
            self.audited["run.cancel-requested"] += 1
        return run.told()

    def decide(self, run: ModelRun, approve: bool, now: datetime) -> Told:
        """Decides about what the run asked for last."""
        if not run.asked:
            return MISSING
        if run.status != "waiting" or run.resume_until is None or _is_stuck(run, now):
            return Told(APPROVAL, refused=True)
        run.asked[-1] = "approved" if approve else "rejected"
        run.spent = False
        run.status, run.claimed_at, run.started_at, run.start_deadline = "queued", None, None, None
        run.resume_until = max(run.resume_until, now + RESUMABLE)
        run.pool_from = run.resume_until if run.in_pool else None
        return run.told()

    def reassign(self, worker: str | None, has_pool: bool, now: datetime) -> None:
        self.worker, self.has_pool = worker, has_pool
        for run in self._queued():
            if run.spells:  # only its worker can go on
                continue
            run.in_pool, run.pool_from = has_pool, self._pool_from(run.available_at, now)
            if not has_pool:
                run.avoided = None
            if run.had_effects:
                assert run.resume_until is not None
                run.resume_until = min(run.resume_until, now)
            else:
                run.worker, run.resume_until = worker, None

    def open_to_pool(self, workers: set[str]) -> None:
        """Lets all workers of the pool take what these workers, which got disabled or limited, would take first."""
        for run in self._queued():
            if (
                run.in_pool
                and run.worker in workers
                and run.resume_until is None
                and not run.spells
            ):
                run.pool_from = run.available_at

    # --- the worker ---

    def claim(self, run: ModelRun, worker: str, claim_id: str | None, now: datetime) -> Told:
        if not self.may_claim(run, worker, now):
            if run.worker != worker and not (run.in_pool and worker in self.members):
                return MISSING
            same = run.worker == worker and run.status == "claimed" and run.claim_id == claim_id
            return run.told() if same else run.refused()
        run.status, run.claim_id, run.claimed_at, run.worker = "claimed", claim_id, now, worker
        if self.max_concurrent is not None:
            taken = {other.trigger_slot for other in self.runs}
            run.trigger_slot = next(n for n in range(1, self.max_concurrent + 1) if n not in taken)
        self._renew(run, now, counted_from_now=True)
        self.audited["run.claimed"] += 1
        return run.told()

    def may_claim(self, run: ModelRun, worker: str, now: datetime) -> bool:
        """Whether a claim of the run by the worker succeeds now."""
        first = run.worker == worker
        open_ = run.pool_from is not None and run.pool_from <= now and worker in self.members
        avoided = run.avoided == worker and run.available_at + self.prefer > now
        late = run.start_deadline is not None and run.start_deadline <= now
        return (
            run.status == "queued"
            and run.available_at <= now
            and (first or open_)
            and not (avoided or late or _is_stuck(run, now) or self.paused)
            and self.room_of(worker, now) > 0
            and self.room_of_trigger() > 0
        )

    def room_of(self, worker: str, now: datetime) -> int:
        held = sum(run.worker == worker and run.status in HELD for run in self.runs)
        return max(0, self.workers[worker].capacity(now) - held)

    def room_of_trigger(self) -> int:
        held = sum(run.status in HELD for run in self.runs)
        return len(self.runs) if self.max_concurrent is None else self.max_concurrent - held

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

    def heartbeat(
        self, run: ModelRun, worker: str, now: datetime, session: str | None = None
    ) -> Told:
        if run.worker != worker:
            return MISSING
        if run.status not in HELD:
            return run.refused()
        self._renew(run, now, counted_from_now=False)
        run.session = session or run.session
        return run.told()

    def complete(  # noqa: C901 - the rules of docs/run-lifecycle.md stand in one place
        self,
        run: ModelRun,
        worker: str,
        status: str,
        fault: str | None,
        retry_after: int | None,
        now: datetime,
        *,
        session: str | None = None,
        effects: int | None = None,
        limited: dict[str, datetime] | None = None,
        cost: int | None = None,
    ) -> Told:
        """Ends the run as its worker reports. `cost` is that of its last spell. `limited` has until when each worker of
        the account is limited, if the report has a usage limit and the service heeds it.
        """
        if run.worker != worker:
            return MISSING
        settled = _settled(status, fault)
        if run.status in UNHELD:
            return run.refused()
        if run.ended_by == "worker" and run.status == status:
            return run.told()
        if status == "canceled" and not run.cancel_requested:
            return run.refused()
        if run.status in HELD:
            self.audited["run.canceled" if status == "canceled" else "run.completed"] += 1
            self._end(run, status, settled, "worker", now)
            self._note(run, session, effects, limited)
            run.cost = _added(run.cost, cost)
            if run.at_limit and limited is not None:
                self._limit(limited, now)
            if self._calls_for_retry(run):
                self._retry(run, now, retry_after)
            return run.told()
        if run.ended_by not in {"lease", "deadline"}:
            return run.refused()
        if (retry := self.retry_of(run)) is None or retry.claimed_at is None:
            self._note(run, session, effects, limited, status=status, fault=settled)
            if status != "canceled" or run.cancel_requested:
                run.cost = _added(run.cost, cost)
        return self._late(run, status, settled, retry_after, now)

    def ask(
        self,
        run: ModelRun,
        worker: str,
        claim_id: str | None,
        now: datetime,
        session: str,
        effects: int | None,
        cost: int | None,
    ) -> Told:
        """Lets the run wait, as its worker reports."""
        if run.worker != worker:
            return MISSING
        if run.spells and (run.status in UNHELD or run.ended_by in ENDED_UNHELD):
            return run.told()
        if run.status in HELD and run.claim_id != claim_id:
            return run.refused()
        if run.status in HELD and (run.cancel_requested or run.spells == MAX_SPELLS - 1):
            status = "canceled" if run.cancel_requested else "failed"
            return self.complete(
                run, worker, status, None, None, now, session=session, effects=effects, cost=cost
            )
        # These ends may be what became of the same report before.
        had_all = run.status == "failed" and run.spells == MAX_SPELLS - 1
        if run.ended_by == "worker" and (run.status == "canceled" or had_all):
            return run.told()
        if run.status not in HELD:
            return run.refused()
        self.audited["run.waiting"] += 1
        run.status, run.claim_id = "waiting", None
        run.lease = run.deadline = run.trigger_slot = None
        run.active += now - run.started_at if run.started_at else timedelta(0)
        run.spells += 1
        run.resume_until = now + self.decision_time
        run.asked.append("pending")
        run.session, run.cost = session, _added(run.cost, cost)
        if effects is not None:
            run.effects = max(run.effects or 0, (run.earlier_effects or 0) + effects)
        run.earlier_effects = run.effects
        return run.told()

    def spend(self, run: ModelRun, worker: str) -> Told:
        if run.worker != worker or not run.asked:
            return MISSING
        if run.status not in HELD:
            return run.refused()
        if run.asked[-1] != "approved" or run.spent:
            return Told(APPROVAL, refused=True)
        run.spent = True
        return run.told()

    # --- the server ---

    def expire_queued(self, now: datetime) -> None:
        for run in self.runs:
            if run.status == "waiting" and _is_stuck(run, now):
                self.audited["run.approval-expired"] += 1
                self._end_unheld(run, "failed", "client", "approval_expired", now)
        for run in self._queued():
            late = run.start_deadline is not None and run.start_deadline <= now
            if late or _is_stuck(run, now):
                self.audited["run.not-started"] += 1
                by = "approval_unreachable" if run.spells else "had_effects"
                self._end(run, "failed", "infra", "start_deadline" if late else by, now)

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
                later = now + timedelta(seconds=retry_after) - retry.available_at
                if later > timedelta(0):
                    _postpone(retry, later)
        elif retry is not None and retry.status == "queued":
            retry.status, retry.fault = "canceled", "none"
            retry.ended_at, retry.ended_by = now, "late_result"
        return run.told()

    def _calls_for_retry(self, run: ModelRun) -> bool:
        used = run.attempt - run.limit_retries > self.max_retries
        if run.at_limit:
            used = run.limit_retries >= LIMIT_RETRIES
        unsafe = self.resumes and not self._can_resume(run) and _may_have_had_effects(run)
        return (
            run.status in {"failed", "timed_out"}
            and run.fault == "infra"
            and not (used or unsafe or run.cancel_requested)
        )

    def _can_resume(self, run: ModelRun) -> bool:
        same = self.has_pool or self.worker == run.worker
        return self.resumes and run.session is not None and same

    def _retry(self, run: ModelRun, now: datetime, retry_after: int | None) -> None:
        if not self.enabled:
            return
        assert run.worker is not None
        delay = timedelta(0)
        if not run.at_limit:
            delay = BACKOFF[min(run.attempt - run.limit_retries, 3) - 1]
            delay = max(delay, timedelta(seconds=retry_after or 0))
        due = now + delay
        retry = ModelRun("retry", run.attempt + 1, self.worker, due, retry_of=run)
        retry.in_pool = self.has_pool
        retry.limit_retries = run.limit_retries + run.at_limit
        if self._can_resume(run):
            limit = self.workers[run.worker].limited_until
            retry.worker = run.worker
            retry.resume_until = max(due, limit or due) + RESUMABLE
            retry.had_effects = _may_have_had_effects(run)
            retry.pool_from = retry.resume_until if self.has_pool else None
        elif self.has_pool:
            same = self.worker == run.worker
            retry.pool_from = due if same else self._pool_from(due, now)
            other = self.worker is not None and not same and self.workers[self.worker].is_ready(now)
            if not run.at_limit and (other or self._another_is_ready(run.worker, now)):
                retry.avoided = run.worker
        self.audited["run.retried"] += 1
        self._add(retry)

    def _limit(self, limited: dict[str, datetime], now: datetime) -> None:
        for name, until in limited.items():
            self.workers[name].limited_until = until
        self.open_to_pool(set(limited))
        resumable = max(limited.values()) + RESUMABLE
        for run in self._queued():
            if run.spells or run.resume_until is None:
                continue
            if run.worker in limited and now < run.resume_until < resumable:
                run.resume_until = resumable
                run.pool_from = resumable if run.in_pool else None

    def _note(
        self,
        run: ModelRun,
        session: str | None,
        effects: int | None,
        limited: object,
        *,
        status: str | None = None,
        fault: str | None = None,
    ) -> None:
        if (status or run.status) == "canceled" and not run.cancel_requested:
            return
        run.session = session or run.session
        if effects is not None:
            run.effects = max(run.effects or 0, (run.earlier_effects or 0) + effects)
        ended = (status or run.status, fault or run.fault)
        run.at_limit = limited is not None and ended == ("failed", "infra")

    def _pool_from(self, due: datetime, now: datetime) -> datetime | None:
        if not self.has_pool:
            return None
        first = self.worker is not None and self.workers[self.worker].is_ready(now)
        return due + self.prefer if first and self._another_is_ready(self.worker, now) else due

    def _another_is_ready(self, worker: str | None, now: datetime) -> bool:
        return any(self.workers[each].is_ready(now) for each in self.members - {worker})

    def _queued(self) -> list[ModelRun]:
        return [run for run in self.runs if run.status == "queued"]

    def _end(self, run: ModelRun, status: str, fault: str, by: str, now: datetime) -> None:
        run.status, run.fault, run.ended_by, run.ended_at = status, fault, by, now
        run.lease = run.deadline = run.trigger_slot = None
        run.delivered.append(status)

    def _end_unheld(self, run: ModelRun, status: str, fault: str, by: str, now: datetime) -> None:
        if run.asked and run.asked[-1] == "pending":
            run.asked[-1] = "withdrawn" if by == "user" else "expired"
        run.started_at = None
        self._end(run, status, fault, by, now)

    def _renew(self, run: ModelRun, now: datetime, *, counted_from_now: bool) -> None:
        run.lease = now + LEASE
        if counted_from_now:
            run.deadline = now + self.timeout + GRACE

    def _add(self, run: ModelRun) -> ModelRun:
        if self.start_deadline is not None:
            run.start_deadline = run.available_at + self.start_deadline
        self.runs.append(run)
        return run


def _postpone(run: ModelRun, by: timedelta) -> None:
    run.available_at += by
    run.pool_from = run.pool_from and run.pool_from + by
    run.start_deadline = run.start_deadline and run.start_deadline + by
    run.resume_until = run.resume_until and run.resume_until + by


def _is_stuck(run: ModelRun, now: datetime) -> bool:
    """Whether the run could only continue a session, and the time for that is over."""
    only_resumes = run.had_effects or run.spells > 0
    return only_resumes and run.resume_until is not None and run.resume_until <= now


def _added(earlier: int | None, reported: int | None) -> int | None:
    return reported if earlier is None else earlier + (reported or 0)


def _may_have_had_effects(run: ModelRun) -> bool:
    return run.had_effects or bool(run.effects)


def _settled(status: str, fault: str | None) -> str:
    if status not in {"failed", "timed_out"}:
        return "none"
    return "infra" if fault == "infra" else "client"
