"""In random histories of runs the database and an independent model of SPEC §6 never differ."""

import json
import os
from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from audit.models import AuditEntry
from pipedai.api.errors import Conflict, NotFound
from pipedai.events import Actor
from pipedai.sql import database_now
from testing.probes.run_model import MISSING, Model, ModelRun, Told
from testing.world.cast import make_cast
from triggers.models import Delivery, Run, RunText, Trigger
from triggers.runs import lifecycle, reports
from triggers.runs.outcome import Outcome, settled_fault
from triggers.states import Source

MAX_RETRIES, TIMEOUT = 2, 300
ACTOR = Actor("system")
# These steps lie just before, at and after every limit: back-offs, the lease, the deadline with its grace.
STEPS = [1, 29, 30, 31, 119, 120, 121, 179, 180, 181, 359, 360, 361, 600, 601]
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))

# Most calls come from the worker to which the run belongs, because the API refuses nearly all others.
OWN = "own"
workers = st.sampled_from([OWN] * 5 + ["one", "two"])
mostly_on = st.sampled_from([True] * 5 + [False])
statuses = st.sampled_from(["succeeded", "failed", "timed_out", "canceled"])
faults = st.sampled_from([None, "infra", "infra", "client", "none"])


class RunHistory(RuleBasedStateMachine):
    """Makes each call on the database and on the model, and compares their answers and their states."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()

    @initialize(target=runs)
    def make(self):
        """Makes some runs at first, because most calls of a short history need a run."""
        cast = make_cast()
        self.environment_id = cast.environment.id
        self.worker_ids = {"one": cast.worker.worker_id, "two": cast.register("two").worker_id}
        self.trigger_id = cast.add_trigger(
            max_retries=MAX_RETRIES,
            timeout_seconds=TIMEOUT,
            webhook_url="https://hooks.example/",
        )
        self.now = database_now() + timedelta(days=1)
        self.model = Model(
            worker="one", workers=["one", "two"], max_retries=MAX_RETRIES, timeout=TIMEOUT
        )
        self.ids: list[UUID] = []  # the ids of the model's runs, in the model's order
        self.before = self.actions()
        return multiple(*(self.queue_run() for _ in range(4)))

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.example.__exit__(None, None, None)

    # --- time and people ---

    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(target=runs)
    def queue(self):
        run = self.queue_run()
        return multiple() if run is None else run

    @rule(run=runs)
    def cancel(self, run: ModelRun) -> None:
        expected = self.model.cancel(run, self.now)
        self.compare(
            expected,
            lambda: lifecycle.cancel_run(run_id=self.id_of(run), actor=ACTOR, now=self.now),
        )

    @rule(enabled=mostly_on)
    def enable_the_trigger_or_not(self, enabled: bool) -> None:
        self.model.enabled = enabled
        Trigger.objects.filter(id=self.trigger_id).update(enabled=enabled)

    @rule(worker=st.sampled_from(["one", "one", "two", "two", None]))
    def reassign(self, worker: str | None) -> None:
        self.model.reassign(worker)
        worker_id = None if worker is None else self.worker_ids[worker]
        Trigger.objects.filter(id=self.trigger_id).update(worker_id=worker_id)
        lifecycle.reassign_queued_runs(trigger_id=self.trigger_id, now=self.now)

    @rule(worker=st.sampled_from(["one", "two"]), most=st.integers(1, 4), on=mostly_on)
    def change_a_worker(self, worker: str, most: int, on: bool) -> None:
        self.model.workers[worker].max_concurrency = most
        self.model.workers[worker].disabled = not on

    # --- the worker ---

    @rule(run=runs, worker=workers, claim_id=st.sampled_from([None, "a", "b"]))
    def claim(self, run: ModelRun, worker: str, claim_id: str | None) -> None:
        worker = self.named(run, worker)
        mine = self.model.workers[worker]
        expected = self.model.claim(run, worker, claim_id, self.now)
        self.compare(
            expected,
            lambda: lifecycle.claim_run(
                worker_id=self.worker_ids[worker],
                run_id=self.id_of(run),
                claim_id=claim_id,
                capacity=0 if mine.disabled else mine.max_concurrency,
                approved=True,
                actor=ACTOR,
                now=self.now,
            ),
        )

    @rule(run=runs, worker=workers)
    def start(self, run: ModelRun, worker: str) -> None:
        worker = self.named(run, worker)
        expected = self.model.start(run, worker, self.now)
        self.compare(
            expected,
            lambda: lifecycle.start_run(
                worker_id=self.worker_ids[worker],
                run_id=self.id_of(run),
                actor=ACTOR,
                now=self.now,
            ),
        )

    @rule(run=runs, worker=workers)
    def heartbeat(self, run: ModelRun, worker: str) -> None:
        worker = self.named(run, worker)
        expected = self.model.heartbeat(run, worker, self.now)
        self.compare(
            expected,
            lambda: lifecycle.heartbeat_run(
                worker_id=self.worker_ids[worker], run_id=self.id_of(run), now=self.now
            ),
        )

    @rule(
        run=runs,
        worker=workers,
        status=statuses,
        fault=faults,
        retry_after=st.sampled_from([None, 0, 10, 700]),
    )
    def complete(
        self, run: ModelRun, worker: str, status: str, fault: str | None, retry_after: int | None
    ) -> None:
        worker = self.named(run, worker)
        expected = self.model.complete(run, worker, status, fault, retry_after, self.now)
        outcome = Outcome(
            status=status,
            fault_class=settled_fault(status, fault),
            retry_after_seconds=retry_after,
        )
        self.compare(
            expected,
            lambda: reports.complete_run(
                worker_id=self.worker_ids[worker],
                run_id=self.id_of(run),
                outcome=outcome,
                reported={"status": status},
                actor=ACTOR,
                now=self.now,
            ),
        )

    # --- histories that chance would seldom make ---

    @rule(run=runs)
    def it_is_claimed_when_due_and_never_heard_of_again(self, run: ModelRun) -> None:
        if run.status == "queued" and run.worker is not None:
            self.claim_when_due(run)
            self.now += timedelta(seconds=180)
            self.expire_all()

    @rule(run=runs)
    def it_runs_and_is_out_of_time(self, run: ModelRun) -> None:
        if run.status == "claimed":
            self.start(run, OWN)
        while run.status in {"claimed", "running"} and run.ended_by is None:
            self.now += timedelta(seconds=170)
            self.heartbeat(run, OWN)
            self.expire_all()

    @rule(
        choice=st.integers(0, 20),
        status=statuses,
        fault=faults,
        retry_after=st.sampled_from([None, 700]),
        retry_is_claimed=st.booleans(),
        repeated=st.booleans(),
    )
    def its_worker_reports_late(
        self,
        choice: int,
        status: str,
        fault: str | None,
        retry_after: int | None,
        retry_is_claimed: bool,
        repeated: bool,
    ) -> None:
        given_up = [run for run in self.model.runs if run.ended_by in {"lease", "deadline"}]
        if not given_up:
            return
        run = given_up[choice % len(given_up)]
        retry = self.model.retry_of(run)
        if retry is not None and retry_is_claimed and retry.worker is not None:
            self.claim_when_due(retry)
        for _ in range(1 + repeated):
            self.complete(run, OWN, status, fault, retry_after)

    # --- the server ---

    @rule(target=runs)
    def expire(self):
        known = len(self.model.runs)
        self.expire_all()
        return multiple(*self.model.runs[known:])

    @rule(target=runs, run=runs)
    def look_at_its_retry(self, run: ModelRun):
        retry = self.model.retry_of(run)
        return multiple() if retry is None else retry

    # --- invariants ---

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        self.learn_ids_of_retries()
        late = set(
            RunText.objects.filter(late_result__isnull=False).values_list("run_id", flat=True)
        )
        rows = {row.id: row for row in Run.objects.filter(trigger_id=self.trigger_id)}
        assert len(rows) == len(self.model.runs)
        for run, run_id in zip(self.model.runs, self.ids, strict=True):
            assert self.seen(rows[run_id], run_id in late) == self.meant(run)

    @invariant()
    def deliveries_and_audit_are_the_model_s(self) -> None:
        if not hasattr(self, "model"):
            return
        queued = Counter(
            (delivery.run_id, json.loads(delivery.body)["status"])
            for delivery in Delivery.objects.filter(trigger_id=self.trigger_id)
        )
        meant = Counter(
            (run_id, status)
            for run, run_id in zip(self.model.runs, self.ids, strict=True)
            for status in run.delivered
        )
        assert queued == meant
        assert self.actions() - self.before == self.model.audited

    # --- making a call ---

    def queue_run(self) -> ModelRun | None:
        expected = self.model.queue(self.now)
        try:
            with transaction.atomic():
                run = lifecycle.queue_run(
                    trigger_id=self.trigger_id, source=Source.API, actor=ACTOR, now=self.now
                )
        except Conflict:
            assert expected is None
            return None
        assert expected is not None
        self.ids.append(run["id"])
        return expected

    def named(self, run: ModelRun, worker: str) -> str:
        return (run.worker or "one") if worker == OWN else worker

    def claim_when_due(self, run: ModelRun) -> None:
        self.now = max(self.now, run.available_at)
        self.claim(run, OWN, "a")

    def expire_all(self) -> None:
        self.model.expire(self.now)
        while lifecycle.expire_runs(now=self.now):
            pass
        self.learn_ids_of_retries()

    # --- comparing the two ---

    def compare(self, expected: Told, call) -> None:
        try:
            told = Told(str(call()["status"]))
        except lifecycle.Refused as refused:
            told = Told(refused.extra["status"], refused=True)
        except NotFound:
            told = MISSING
        assert told == expected
        self.learn_ids_of_retries()

    def id_of(self, run: ModelRun) -> UUID:
        return self.ids[self.index(run)]

    def index(self, run: ModelRun) -> int:
        return next(i for i, other in enumerate(self.model.runs) if other is run)

    def learn_ids_of_retries(self) -> None:
        for run in self.model.runs[len(self.ids) :]:
            assert run.retry_of is not None
            original = self.id_of(run.retry_of)
            self.ids.append(Run.objects.values_list("id", flat=True).get(retry_of_id=original))

    def actions(self) -> Counter[str]:
        """Counts the audited actions on runs. The incidents that runs open and close have a model of their own."""
        rows = AuditEntry.objects.filter(environment_id=self.environment_id, target_type="run")
        return Counter(rows.values_list("action", flat=True))

    def seen(self, row: Run, late: bool) -> dict[str, object]:
        return {
            "status": row.status,
            "fault": row.fault_class,
            "source": row.source,
            "attempt": row.attempt,
            "worker": row.worker_id,
            "available_at": row.available_at,
            "claim_id": row.claim_id,
            "claimed_at": row.claimed_at,
            "started_at": row.started_at,
            "ended_at": row.ended_at,
            "ended_by": row.ended_by,
            "lease": row.lease_expires_at,
            "deadline": row.deadline_at,
            "cancel_requested": row.cancel_requested_at is not None,
            "retry_of": row.retry_of_id,
            "late_result": late,
        }

    def meant(self, run: ModelRun) -> dict[str, object]:
        return {
            "status": run.status,
            "fault": run.fault,
            "source": run.source,
            "attempt": run.attempt,
            "worker": None if run.worker is None else self.worker_ids[run.worker],
            "available_at": run.available_at,
            "claim_id": run.claim_id,
            "claimed_at": run.claimed_at,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "ended_by": run.ended_by,
            "lease": run.lease,
            "deadline": run.deadline,
            "cancel_requested": run.cancel_requested,
            "retry_of": None if run.retry_of is None else self.id_of(run.retry_of),
            "late_result": run.late_result,
        }


@pytest.mark.slow
def test_no_history_tells_the_ledger_and_the_model_apart(own_database):
    run_state_machine_as_test(
        RunHistory,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
