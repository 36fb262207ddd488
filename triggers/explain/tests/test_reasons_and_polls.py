"""In random states a queued run has no reason to wait exactly when its worker's poll returns it and a claim succeeds.

`worker_offline` does not count here, because a worker that polls is not offline.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipedai.api.errors import Conflict, NotFound, Unauthenticated
from pipedai.api.principal import WorkerPrincipal
from pipedai.events import SYSTEM
from pipedai.sql import database_now, execute
from testing.world.budgets import add_budget
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.runs import Runs
from triggers import services
from triggers.explain.answers import WaitingFor
from triggers.explain.runs import explain_run
from triggers.models import Budget, Run, Trigger
from triggers.runs import lifecycle
from triggers.runs.conditions import limits_of
from triggers.runs.handout import hand_out_runs
from triggers.states import TERMINAL, Status
from workers.authentication import WorkerTokenAuthentication
from workers.models import Worker
from workers.protocol.limits import locked_limits

EXAMPLES = int(os.environ.get("EXPLAIN_EXAMPLES", "200"))
# The random states must bring each code about as the only reason of some run. So if an explanation, a poll or a claim
# forgot one of the conditions, the property would not hold in such a state.
CODES = set(WaitingFor) - {WaitingFor.WORKER_OFFLINE}
# These keep a run out of a poll, but its worker may claim it all the same, such as after an earlier poll.
OF_POLLS_ALONE = {WaitingFor.BEHIND_OTHERS, WaitingFor.HEADERS_UNREADABLE}
# A run with one of these goes before no other run of its worker.
OF_THE_RUN = {
    WaitingFor.HEADERS_UNREADABLE,
    WaitingFor.WORKER_UNAPPROVED,
    WaitingFor.NOT_DUE,
    WaitingFor.BUDGET_EXHAUSTED,
}
BREAK = "UPDATE trigger SET mcp_headers = set_byte(mcp_headers, 40, get_byte(mcp_headers, 40) # 1) WHERE id = %(id)s"

# How many runs had this code as their only reason, or None if they had no reason.
seen: Counter[WaitingFor | None] = Counter()


@dataclass
class World:
    """Three workers and four triggers of one environment, two of these with secret headers. A test changes them."""

    cast: Cast
    workers: list[UUID]
    digests: list[bytes]
    triggers: list[UUID]
    now: datetime = field(default_factory=lambda: database_now() + timedelta(days=1))

    def runs(self, trigger: int = 0) -> Runs:
        return Runs(self.cast, self.triggers[trigger], now=self.now)

    # --- What happens to triggers and runs

    def time_passes(self, number: int) -> None:
        self.now += timedelta(seconds=(1, 31, 121, 200)[number % 4])

    def queue(self, number: int) -> None:
        # A conflict says that the trigger is disabled or has no worker.
        with contextlib.suppress(Conflict, NotFound):
            self.runs(number % 4).queue()

    def cancel(self, number: int) -> None:
        unfinished = list(Run.objects.filter(ended_at=None).order_by("id").values_list("id"))
        if unfinished:
            self.runs().cancel(unfinished[number % len(unfinished)][0])

    def reassign(self, number: int) -> None:
        trigger_id = self.triggers[number % 4]
        worker_id = [*self.workers, None][number // 4 % 4]
        if Trigger.objects.filter(id=trigger_id, deleted_at=None).update(worker_id=worker_id):
            lifecycle.reassign_queued_runs(trigger_id=trigger_id, now=self.now)

    def delete_trigger(self, number: int) -> None:
        trigger_id = self.triggers[number % 4]
        # A conflict says that it has unfinished runs.
        with contextlib.suppress(Conflict, NotFound):
            services.delete_trigger(trigger_id=trigger_id, actor=TEST_ACTOR)

    def disable_trigger(self, number: int) -> None:
        Trigger.objects.filter(id=self.triggers[number % 4]).update(enabled=number % 3 == 0)

    def break_headers(self, number: int) -> None:
        """Makes the headers of a trigger unreadable, or readable again."""
        execute(BREAK, {"id": self.triggers[2 + number % 2]})

    # --- What happens to workers

    def disable(self, number: int) -> None:
        self._change(number, disabled_at=self.now if number % 2 else None)

    def resize(self, number: int) -> None:
        self._change(number, max_concurrency=1 + number % 3)

    def unapprove(self, number: int) -> None:
        self._change(number, unapproved_since=self.now if number % 2 else None)

    def revoke(self, number: int) -> None:
        digest = None if number % 2 else self.digests[number // 2 % 3]
        self._change(number, token_digest=digest)

    def limit(self, number: int) -> None:
        """Gives the environment, or one of its triggers, a budget for one run or for none, or deletes all budgets."""
        if number % 8 == 7:
            Budget.objects.update(deleted_at=self.now)
            return
        trigger_id = self.triggers[number // 2 % 4] if number % 3 else None
        limit = {"limit_runs": number % 3} if number % 2 else {"limit_usd": "1"}
        reserve = "0.6" if number % 4 else "1.1"
        add_budget(self.cast, trigger_id=trigger_id, reserve_usd=reserve, **limit)

    def call(self, number: int) -> None:
        self._change(number, last_seen_at=self.now)

    def hold(self, number: int) -> None:
        """Queues a run, and lets the worker of its trigger claim one and keep it."""
        self.queue(number)
        self._claim_first(Trigger.objects.get(id=self.triggers[number % 4]).worker_id)

    def fail(self, number: int) -> None:
        """Lets a worker claim a run and fail it, so that a retry waits."""
        worker_id = self.workers[number % 3]
        if run := self._claim_first(worker_id):
            self.runs().complete(run, "failed", worker_id=worker_id, faultClass="infra")

    def _claim_first(self, worker_id: UUID | None) -> UUID | None:
        """Lets a worker poll and claim the first run, which it returns."""
        for run in self.poll(worker_id)[:1]:
            self.runs().claim(run, worker_id=worker_id)
            return run
        return None

    def _change(self, number: int, **columns: Any) -> None:
        Worker.objects.filter(id=self.workers[number // 2 % 3]).update(**columns)

    # --- What is compared

    def principal(self, worker_id: UUID | None) -> WorkerPrincipal | None:
        if worker_id is None:
            return None
        return WorkerTokenAuthentication().find(self.digests[self.workers.index(worker_id)])

    def poll(self, worker_id: UUID | None) -> list[UUID]:
        """Polls as the endpoint does, and returns the runs that the worker gets."""
        worker = self.principal(worker_id)
        if worker is None or worker_id is None:
            return []
        limits = limits_of(
            max_concurrency=worker.max_concurrency,
            disabled=worker.disabled,
            limited=worker.limited_until is not None,
            approved=worker.approved,
        )
        runs = hand_out_runs(worker_id=worker_id, **limits, actor=SYSTEM, now=self.now)
        return [run.row["id"] for run in runs]

    def can_claim(self, worker_id: UUID | None, run_id: UUID) -> bool:
        """Claims as the endpoint does, takes it back, and returns whether it succeeded."""
        worker = self.principal(worker_id)
        if worker is None or worker_id is None:
            return False
        try:
            with transaction.atomic():
                lifecycle.claim_run(
                    worker_id=worker_id,
                    run_id=run_id,
                    claim_id=None,
                    **locked_limits(worker),
                    actor=SYSTEM,
                    now=self.now,
                )
                transaction.set_rollback(True)
        except (Conflict, Unauthenticated):
            return False
        return True

    def check(self) -> None:
        """Compares what explanations say with what polls and claims do."""
        polled = {run for worker in self.workers for run in self.poll(worker)}
        ahead: Counter[UUID | None] = Counter()
        runs = Run.objects.filter(trigger_id__in=self.triggers).order_by("available_at", "id")
        for run_id, worker_id in runs.values_list("id", "worker_id"):
            told = explain_run(run_id, now=self.now)
            assert told is not None
            assert (told.ended is None) == (told.status not in TERMINAL)
            if told.status != Status.QUEUED:
                assert told.waiting_for == ()
                continue
            codes = {reason.code for reason in told.waiting_for} & CODES
            if len(codes) < 2:
                seen.update(codes or [None])
            assert (run_id in polled) == (not codes), told
            assert self.can_claim(worker_id, run_id) == (not codes - OF_POLLS_ALONE), told
            for place in (reason.place for reason in told.waiting_for if reason.place):
                assert place == ahead[worker_id] + 1, told
            ahead[worker_id] += not codes & OF_THE_RUN


ACTIONS: list[Callable[[World, int], None]] = [
    *[World.queue] * 6,
    *[World.hold] * 3,
    *[World.fail] * 2,
    *[World.reassign] * 2,
    *[World.resize] * 2,
    *[World.time_passes] * 2,
    World.cancel,
    World.delete_trigger,
    World.disable_trigger,
    *[World.break_headers] * 2,
    *[World.disable] * 2,
    World.unapprove,
    *[World.revoke] * 2,
    World.call,
    *[World.limit] * 2,
]


def make_world(cast: Cast) -> World:
    workers = [cast.worker, cast.register("two", max_concurrency=2), cast.register_by_key("three")]
    triggers = [
        cast.add_trigger(
            worker_id=workers[n % 3].worker_id,
            mcp_headers={"X-Key": "planted-header-value"} if n > 1 else {},
        )
        for n in range(4)
    ]
    ids = [worker.worker_id for worker in workers]
    digests = dict(Worker.objects.filter(id__in=ids).values_list("id", "token_digest"))
    return World(cast, ids, [bytes(digests[id_] or b"") for id_ in ids], triggers)


def test_a_queued_run_has_no_reason_exactly_when_its_worker_gets_it(cast: Cast) -> None:
    world = make_world(cast)
    begin = world.now

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 47)), min_size=8, max_size=16)
    )
    def holds(steps: list[tuple[Callable[[World, int], None], int]]) -> None:
        world.now = begin
        with transaction.atomic():
            for action, number in steps:
                action(world, number)
            world.check()
            transaction.set_rollback(True)

    seen.clear()
    holds()
    assert set(seen) == CODES | {None}
