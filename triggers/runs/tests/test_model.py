"""In random histories of runs the database and an independent model of docs/run-lifecycle.md never differ."""

import json
import os
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
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

from pipedai.api.errors import Conflict, NotFound
from pipedai.events import Actor
from pipedai.sql import Row, database_now, fetch_all
from testing.probes.run_model import APPROVAL, MISSING, Model, ModelRun, ModelWorker, Told
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import RULES, Runs
from triggers.models import Run, Trigger
from triggers.runs import lifecycle, queueing, reports, routing
from triggers.runs.conditions import Limits
from triggers.runs.handout import choose_runs, claim_next_run
from triggers.runs.lifecycle import Refused
from triggers.runs.outcome import Outcome, Question, ToolCalls, UsageLimit, settled_fault
from triggers.runs.routing import open_to_pools
from triggers.states import Source
from workers.models import PoolMember, Worker
from workspaces.models import Environment

MAX_RETRIES, TIMEOUT, PREFER = 2, 300, 60
DECISION_TIME = timedelta(seconds=600)
ACTOR = Actor("system")
# These steps lie just before, at and after every limit: back-offs, the lease, the deadline with its grace,
# the seconds of preference, the time for resuming.
STEPS = [1, 29, 30, 31, 119, 120, 121, 179, 180, 181, 359, 360, 361, 600, 601, 3600]
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))

LEDGER = """
SELECT run.*, late_result IS NOT NULL AS late, ARRAY(
    SELECT status FROM approval a WHERE a.run_id = run.id ORDER BY a.expires_at) AS asked
FROM run LEFT JOIN run_text ON run_text.run_id = run.id
WHERE run.trigger_id = %(id)s
"""
DELIVERIES = "SELECT run_id, body FROM delivery WHERE trigger_id = %(id)s"
ACTIONS = "SELECT action FROM audit_entry WHERE environment_id = %(id)s AND target_type = 'run'"

# Most calls come from the worker to which the run belongs, because the API refuses nearly all others.
OWN = "own"
NAMES = ("one", "two", "three")
workers = st.sampled_from([OWN] * 5 + list(NAMES))
sessions = st.sampled_from([None, None, "s-1"])
mostly_on = st.sampled_from([True] * 5 + [False])
statuses = st.sampled_from(["succeeded", "failed", "timed_out", "canceled"])
faults = st.sampled_from([None, "infra", "infra", "client", "none"])


class RunHistory(RuleBasedStateMachine):
    """Makes each call on the database and on the model, and compares their answers and their states."""

    runs = Bundle("runs")
    # All histories begin with these, and are rolled back.
    cast: ClassVar[Cast]
    worker_ids: ClassVar[dict[str, UUID]]
    pool_id: ClassVar[UUID]

    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()

    @initialize(
        target=runs,
        start_deadline=st.sampled_from([None, None, 700]),
        max_concurrent=st.sampled_from([None, None, 2]),
        retry_mode=st.sampled_from(["restart", "resume"]),
        worker=st.sampled_from(["one", "one", None]),
        has_pool=st.booleans(),
    )
    def make(self, start_deadline, max_concurrent, retry_mode, worker, has_pool):
        """Makes some runs at first, because most calls of a short history need a run."""
        self.environment_id = self.cast.environment.id
        has_pool |= worker is None
        self.trigger_id = self.cast.add_trigger(
            worker_id=self.worker_ids.get(worker),
            pool_id=self.pool_id if has_pool else None,
            prefer_seconds=PREFER,
            start_deadline_seconds=start_deadline,
            max_concurrent_runs=max_concurrent,
            retry_mode=retry_mode,
            max_retries=MAX_RETRIES,
            timeout_seconds=TIMEOUT,
            webhook_url="https://hooks.example/",
            approvals=[RULES[0] | {"expiresAfterSeconds": DECISION_TIME.seconds}],
        )
        self.now = database_now() + timedelta(days=1)
        accounts = {"one": "shared", "two": "shared", "three": None}
        self.model = Model(
            workers={name: ModelWorker(account=account) for name, account in accounts.items()},
            members=set(NAMES),
            worker=worker,
            has_pool=has_pool,
            max_retries=MAX_RETRIES,
            timeout=timedelta(seconds=TIMEOUT),
            prefer=timedelta(seconds=PREFER),
            start_deadline=start_deadline and timedelta(seconds=start_deadline),
            decision_time=DECISION_TIME,
            max_concurrent=max_concurrent,
            resumes=retry_mode == "resume",
        )
        for name in NAMES:
            self.call(name)
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

    @rule(paused=st.sampled_from([True, False, False, False]))
    def pause_the_environment_or_not(self, paused: bool) -> None:
        self.model.paused = paused
        paused_at = self.now if paused else None
        Environment.objects.filter(id=self.environment_id).update(paused_at=paused_at)

    @rule(worker=st.sampled_from([*NAMES[:2], None]), has_pool=st.booleans())
    def reassign(self, worker: str | None, has_pool: bool) -> None:
        self.model.reassign(worker, has_pool, self.now)
        Trigger.objects.filter(id=self.trigger_id).update(
            worker_id=self.worker_ids.get(worker or ""), pool_id=self.pool_id if has_pool else None
        )
        routing.reassign_queued_runs(trigger_id=self.trigger_id, now=self.now)

    @rule(worker=st.sampled_from(NAMES), most=st.integers(1, 4), on=mostly_on)
    def change_a_worker(self, worker: str, most: int, on: bool) -> None:
        self.model.workers[worker].max_concurrency = most
        self.model.workers[worker].disabled = not on
        worker_id = self.worker_ids[worker]
        Worker.objects.filter(id=worker_id).update(disabled_at=None if on else self.now)
        if not on:
            self.model.open_to_pool({worker})
            open_to_pools([worker_id])

    @rule(worker=st.sampled_from(NAMES))
    def lift_a_limit(self, worker: str) -> None:
        self.model.workers[worker].limited_until = None
        Worker.objects.filter(id=self.worker_ids[worker]).update(limited_until=None)

    @rule(worker=st.sampled_from(NAMES), joins=mostly_on)
    def join_or_leave_the_pool(self, worker: str, joins: bool) -> None:
        member = {"pool_id": self.pool_id, "worker_id": self.worker_ids[worker]}
        if joins and worker not in self.model.members:
            PoolMember.objects.create(environment_id=self.environment_id, **member)
            self.model.members.add(worker)
        elif not joins:
            PoolMember.objects.filter(**member).delete()
            self.model.members.discard(worker)

    # --- the worker ---

    @rule(worker=st.sampled_from(NAMES))
    def call(self, worker: str) -> None:
        """Lets the worker be online."""
        self.model.workers[worker].last_seen = self.now
        Worker.objects.filter(id=self.worker_ids[worker]).update(last_seen_at=self.now)

    @rule(worker=st.sampled_from(NAMES))
    def poll(self, worker: str) -> None:
        """A poll returns as many runs as can be claimed, and only such runs."""
        model, now = self.model, self.now
        may_claim = {
            run_id
            for run, run_id in zip(model.runs, self.ids, strict=True)
            if model.may_claim(run, worker, now)
        }
        mine = model.workers[worker]
        chosen = choose_runs(
            worker_id=self.worker_ids[worker],
            capacity=mine.capacity(now),
            approved=True,
            features=["approvals"],
            now=now,
        )
        polled = {run.row["id"] for run in chosen}
        room = min(model.room_of(worker, now), model.room_of_trigger())
        assert polled <= may_claim
        assert len(polled) == min(len(may_claim), room)

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
                capacity=mine.capacity(self.now),
                approved=True,
                features=["approvals"],
                actor=ACTOR,
                now=self.now,
            ),
        )

    @rule(worker=st.sampled_from(NAMES), claim_id=st.sampled_from(["a", "c"]), start=st.booleans())
    def claim_next(self, worker: str, claim_id: str, start: bool) -> None:
        """A worker gets the first run that it holds by this claim id, or else the first one that it may claim."""
        model, now = self.model, self.now
        held = [run for run in model.runs if run.is_held_by(worker, claim_id)]
        choice = held or [run for run in model.runs if model.may_claim(run, worker, now)]
        first = min(choice, key=lambda run: (run.available_at, self.id_of(run)), default=None)
        due_with_it = [run for run in choice if first and run.available_at == first.available_at]
        if len(due_with_it) > 1 and any(run.retry_of for run in due_with_it):
            # Retries that were made at one moment have their ids in no order, but histories must repeat themselves.
            return
        limits: Limits = {
            "capacity": model.workers[worker].capacity(now),
            "approved": True,
            "features": ["approvals"],
        }
        given = claim_next_run(
            worker_id=self.worker_ids[worker],
            claim_id=claim_id,
            start=start,
            limits=limits,
            lock_worker=lambda: limits,
            has_pools=worker in model.members,
            actor=ACTOR,
            now=now,
        ).run
        assert (given and given.row["id"]) == (first and self.id_of(first))
        if given is None or first is None:
            return
        if not held:
            model.claim(first, worker, claim_id, now)
        if start:
            model.start(first, worker, now)
        assert given.row["status"] == first.status

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

    @rule(run=runs, worker=workers, session=sessions)
    def heartbeat(self, run: ModelRun, worker: str, session: str | None = None) -> None:
        worker = self.named(run, worker)
        expected = self.model.heartbeat(run, worker, self.now, session)
        self.compare(
            expected,
            lambda: lifecycle.heartbeat_run(
                worker_id=self.worker_ids[worker],
                run_id=self.id_of(run),
                session_id=session,
                now=self.now,
            ),
        )

    @rule(
        run=runs,
        worker=workers,
        status=statuses,
        fault=faults,
        retry_after=st.sampled_from([None, 0, 10, 700]),
        session=sessions,
        effects=st.sampled_from([None, 0, 1]),
        cost=st.sampled_from([None, 2]),
        limit=st.sampled_from([None, None, 0, 2000, 10**9]),
    )
    def complete(
        self,
        run: ModelRun,
        worker: str,
        status: str,
        fault: str | None,
        retry_after: int | None,
        session: str | None = None,
        effects: int | None = None,
        cost: int | None = None,
        limit: int | None = None,
    ) -> None:
        worker = self.named(run, worker)
        resets_at = None if limit is None else self.now + timedelta(seconds=limit)
        outcome = Outcome(
            status=status,
            fault_class=settled_fault(status, fault),
            retry_after_seconds=retry_after,
            session_id=session,
            tool_calls=None if effects is None else ToolCalls(2, effects, 0),
            cost_usd=None if cost is None else Decimal(cost),
            usage_limit=None if resets_at is None else UsageLimit(resets_at, "five_hour"),
        )
        index = self.index(run)
        before = {name: mine.limited_until for name, mine in self.model.workers.items()}
        told: list[Told] = []
        self.note(
            told,
            lambda: reports.complete_run(
                worker_id=self.worker_ids[worker],
                run_id=self.ids[index],
                outcome=outcome,
                reported={"status": status},
                actor=ACTOR,
                now=self.now,
            ),
        )
        expected = self.model.complete(
            run,
            worker,
            status,
            fault,
            retry_after,
            self.now,
            session=session,
            effects=effects,
            cost=cost,
            limited=None if resets_at is None else self.limits(worker, before, resets_at),
        )
        assert told == [expected]
        self.learn_ids_of_retries()

    @rule(
        run=runs,
        worker=workers,
        effects=st.sampled_from([None, 0, 1]),
        cost=st.sampled_from([None, 2]),
        is_late=st.booleans(),
    )
    def ask(
        self, run: ModelRun, worker: str, effects: int | None, cost: int | None, is_late: bool
    ) -> None:
        """A late report is of an earlier claim."""
        worker, claim_id = self.named(run, worker), "late" if is_late else run.claim_id
        question = Question("send_mail", "{}", "a" * 64, "b" * 64)
        outcome = Outcome(
            status="waiting",
            fault_class=settled_fault("waiting", None),
            session_id="s-2",
            tool_calls=None if effects is None else ToolCalls(2, effects, 0),
            cost_usd=None if cost is None else Decimal(cost),
            approval=question,
            claim_id=claim_id,
        )
        expected = self.model.ask(run, worker, claim_id, self.now, "s-2", effects, cost)
        self.compare(
            expected,
            lambda: reports.complete_run(
                worker_id=self.worker_ids[worker],
                run_id=self.id_of(run),
                outcome=outcome,
                reported={"status": "waiting"},
                actor=ACTOR,
                now=self.now,
            ),
        )

    @rule(run=runs, approve=st.booleans())
    def decide(self, run: ModelRun, approve: bool) -> None:
        expected = self.model.decide(run, approve, self.now)
        self.compare(
            expected,
            lambda: Runs(self.cast, self.trigger_id, self.now).decide(
                self.id_of(run), approve=approve
            ),
        )

    @rule(run=runs, worker=workers)
    def spend(self, run: ModelRun, worker: str) -> None:
        worker = self.named(run, worker)
        expected = self.model.spend(run, worker)

        def spend() -> Row:
            runs = Runs(self.cast, self.trigger_id, self.now)
            runs.spend(self.id_of(run), worker_id=self.worker_ids[worker])
            return runs.stored(self.id_of(run))

        self.compare(expected, spend)

    def limits(
        self, worker: str, before: dict[str, datetime | None], resets_at: datetime
    ) -> dict[str, datetime]:
        """Returns until when the worker and those of its account are limited, which is partly random."""
        stored: dict[UUID, Any] = dict(Worker.objects.values_list("id", "limited_until"))
        account = self.model.workers[worker].account
        same = [
            name
            for name, mine in self.model.workers.items()
            if name == worker or (account is not None and mine.account == account)
        ]
        limited = {name: stored[self.worker_ids[name]] for name in same}
        if None in limited.values():  # the service did not heed the limit
            return dict.fromkeys(same, self.now)
        least = min(resets_at, self.now + timedelta(days=8))
        for name, until in limited.items():
            old = before[name] or until
            assert until == old or least <= until <= least + timedelta(seconds=60)
        return limited

    # --- histories that chance would seldom make ---

    @rule(run=runs, spells=st.sampled_from([1, 2, 21]), seconds=st.sampled_from([1, 599, 600]))
    def it_asks_again_and_again(self, run: ModelRun, spells: int, seconds: int) -> None:
        for _ in range(spells):
            if run.status != "queued" or run.worker is None:
                return
            self.claim_when_due(run)
            self.start(run, OWN)
            self.now += timedelta(seconds=1)
            self.ask(run, OWN, 1, 2, False)
            self.now += timedelta(seconds=seconds)
            self.decide(run, approve=True)
            self.expire_all()

    @rule(run=runs)
    def it_is_claimed_when_due_and_never_heard_of_again(self, run: ModelRun) -> None:
        if run.status == "queued" and run.worker is not None:
            self.claim_when_due(run)
            self.now += timedelta(seconds=180)
            self.expire_all()

    @rule(run=runs, session=sessions)
    def it_runs_into_a_limit(self, run: ModelRun, session: str | None) -> None:
        if run.status == "queued" and run.worker is not None:
            self.claim_when_due(run)
            self.complete(run, OWN, "failed", "infra", None, session, 1, 2000)

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
        rows = {row["id"]: row for row in fetch_all(LEDGER, {"id": self.trigger_id})}
        assert len(rows) == len(self.model.runs)
        for run, run_id in zip(self.model.runs, self.ids, strict=True):
            assert self.seen(rows[run_id]) == self.meant(run)

    @invariant()
    def deliveries_and_audit_are_the_model_s(self) -> None:
        if not hasattr(self, "model"):
            return
        queued = Counter(
            (delivery["run_id"], json.loads(delivery["body"])["status"])
            for delivery in fetch_all(DELIVERIES, {"id": self.trigger_id})
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
                run = queueing.queue_run(
                    trigger_id=self.trigger_id, source=Source.API, actor=ACTOR, now=self.now
                )
        except Conflict:
            assert expected is None
            return None
        assert expected is not None
        self.ids.append(run["id"])
        return expected

    def named(self, run: ModelRun, worker: str) -> str:
        return (run.worker or "three") if worker == OWN else worker

    def claim_when_due(self, run: ModelRun) -> None:
        self.now = max(self.now, run.available_at)
        self.claim(run, OWN, "a")

    def expire_all(self) -> None:
        self.model.expire(self.now)
        while lifecycle.expire_runs(now=self.now):
            pass
        self.model.expire_queued(self.now)
        while lifecycle.expire_queued_runs(now=self.now):
            pass
        self.learn_ids_of_retries()

    # --- comparing the two ---

    def compare(self, expected: Told, call) -> None:
        told: list[Told] = []
        self.note(told, call)
        assert told == [expected]
        self.learn_ids_of_retries()

    def note(self, told: list[Told], call) -> None:
        """Makes the call, and appends its answer to `told`."""
        try:
            told.append(Told(str(call()["status"])))
        except Refused as refused:
            told.append(Told(refused.extra["status"], refused=True))
        except Conflict:  # It is about an approval, and has its status.
            told.append(Told(APPROVAL, refused=True))
        except NotFound:
            told.append(MISSING)

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
        rows = fetch_all(ACTIONS, {"id": self.environment_id})
        return Counter(row["action"] for row in rows)

    def seen(self, row: Row) -> dict[str, object]:
        return {
            "status": row["status"],
            "fault": row["fault_class"],
            "source": row["source"],
            "attempt": row["attempt"],
            "worker": row["worker_id"],
            "available_at": row["available_at"],
            "claim_id": row["claim_id"],
            "claimed_at": row["claimed_at"],
            "started_at": row["started_at"],
            "ended_at": row["ended_at"],
            "ended_by": row["ended_by"],
            "lease": row["lease_expires_at"],
            "deadline": row["deadline_at"],
            "cancel_requested": row["cancel_requested_at"] is not None,
            "retry_of": row["retry_of_id"],
            "late_result": row["late"],
            "in_pool": row["pool_id"] is not None,
            "pool_from": row["pool_from"],
            "avoided": row["avoided_worker_id"],
            "start_deadline": row["start_deadline_at"],
            "resume_until": row["resume_until"],
            "had_effects": bool(row["had_effects"]),
            "at_limit": bool(row["at_limit"]),
            "limit_retries": row["limit_retries"],
            "trigger_slot": row["trigger_slot"],
            "session": row["session_id"],
            "spells": row["spells"],
            "active_ms": row["active_ms"],
            "cost": row["cost_usd"],
            "effects": row["tool_calls_effects"],
            "asked": row["asked"],
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
            "in_pool": run.in_pool,
            "pool_from": run.pool_from,
            "avoided": self.worker_ids.get(run.avoided or ""),
            "start_deadline": run.start_deadline,
            "resume_until": run.resume_until,
            "had_effects": run.had_effects,
            "at_limit": run.at_limit,
            "limit_retries": run.limit_retries,
            "trigger_slot": run.trigger_slot,
            "session": run.session,
            "spells": run.spells,
            "active_ms": run.active // timedelta(milliseconds=1) if run.spells else None,
            "cost": run.cost,
            "effects": run.effects,
            "asked": run.asked,
        }


@pytest.mark.long
def test_no_history_tells_the_ledger_and_the_model_apart(committed_cast):
    RunHistory.cast = committed_cast
    others = {name: committed_cast.register(name).worker_id for name in NAMES[1:]}
    RunHistory.worker_ids = {"one": committed_cast.worker.worker_id, **others}
    RunHistory.pool_id = add_pool(committed_cast, *RunHistory.worker_ids.values())
    Worker.objects.exclude(id=others["three"]).update(account_id="shared")
    run_state_machine_as_test(
        RunHistory,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
