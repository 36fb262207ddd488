"""In random states a queued run has no reason to wait exactly when an online worker's poll returns it and its claim
succeeds.
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

from pipedai.api.errors import Conflict, NotFound
from pipedai.events import SYSTEM
from pipedai.sql import database_now, execute
from testing.world.budgets import add_budget
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.connections import add_oauth_connection
from testing.world.pools import add_pool
from testing.world.runs import RULES, Runs, locked_limits
from triggers import services
from triggers.explain.answers import Reason, RunExplanation
from triggers.explain.runs import explain_run
from triggers.models import Budget, Run, Trigger
from triggers.reasons import WaitingFor
from triggers.runs import routing
from triggers.runs.conditions import ONLINE_WITHIN
from triggers.runs.handout import hand_out_runs
from triggers.runs.routing import give_trigger_slots, open_to_pools
from triggers.states import TERMINAL, Status
from workers.models import PoolMember, Worker
from workspaces.models import Connection, Environment

EXAMPLES = int(os.environ.get("EXPLAIN_EXAMPLES", "25"))
# These say why other workers do not take a run, beside what keeps the one worker from it.
ASIDES = {WaitingFor.FIRST_WORKER, WaitingFor.RESUME_WORKER}
# These keep a run out of a poll, but its worker may claim it all the same, such as after an earlier poll.
OF_POLLS_ALONE = {WaitingFor.BEHIND_OTHERS, WaitingFor.HEADERS_UNREADABLE}
# The random states must bring each code about as the only reason of some run, but for asides. So if an explanation, a
# poll or a claim forgot one of the conditions, the property would not hold in such a state.
CODES = set(WaitingFor) - {WaitingFor.RESUME_WORKER, WaitingFor.AWAITING_APPROVAL}
BREAK = "UPDATE trigger SET mcp_headers = set_byte(mcp_headers, 40, get_byte(mcp_headers, 40) # 1) WHERE id = %(id)s"

# How many runs had this code as their only reason, or None if they had no reason.
seen: Counter[WaitingFor | None] = Counter()


@dataclass
class World:
    """Three workers, two pools and four triggers of one environment, two of these with secret headers, one of which
    has a connection too. A test changes them.
    """

    cast: Cast
    workers: list[UUID]
    digests: list[bytes]
    pools: list[UUID]
    triggers: list[UUID]
    now: datetime = field(default_factory=lambda: database_now() + timedelta(days=1))

    def runs(self, trigger: int = 0) -> Runs:
        return Runs(self.cast, self.triggers[trigger], now=self.now)

    # --- What happens to triggers and runs

    def time_passes(self, number: int) -> None:
        self.now += timedelta(seconds=(1, 31, 61, 121, 200, 7300)[number % 6])

    def a_night_passes(self, number: int) -> None:
        """Lets two hours pass, in which all workers go on polling."""
        self.now += timedelta(hours=2)
        self.call_all(number)

    def queue(self, number: int) -> None:
        # A conflict says that the trigger is disabled or has no worker, or that the environment is paused.
        with contextlib.suppress(Conflict, NotFound):
            self.runs(number % 4).queue()

    def cancel(self, number: int) -> None:
        unfinished = list(Run.objects.filter(ended_at=None).order_by("id").values_list("id"))
        if unfinished:
            self.runs().cancel(unfinished[number % len(unfinished)][0])

    def reassign(self, number: int) -> None:
        worker_id = [*self.workers, None][number % 4]
        pool_id = [*self.pools, None][number // 4 % 3]
        if self._set(number // 12, worker_id=worker_id, pool_id=pool_id):
            routing.reassign_queued_runs(trigger_id=self.triggers[number // 12 % 4], now=self.now)

    def delete_trigger(self, number: int) -> None:
        trigger_id = self.triggers[number % 4]
        # A conflict says that it has unfinished runs.
        with contextlib.suppress(Conflict, NotFound):
            services.TRIGGERS.delete(trigger_id, actor=TEST_ACTOR)

    def disable_trigger(self, number: int) -> None:
        self._set(number, enabled=number % 3 == 0)

    def limit_trigger(self, number: int) -> None:
        """Limits how many runs of a trigger may be held at once, or lifts the limit."""
        if self._set(number, max_concurrent_runs=[1, 2, None][number // 4 % 3]):
            give_trigger_slots(
                environment_id=self.cast.environment.id, trigger_id=self.triggers[number % 4]
            )

    def set_deadline(self, number: int) -> None:
        self._set(number, start_deadline_seconds=[60, None][number // 4 % 2])

    def resume(self, number: int) -> None:
        """Lets a trigger's retries continue sessions, or start anew."""
        self._set(number, retry_mode=["resume", "restart"][number // 4 % 2])

    def set_rules(self, number: int) -> None:
        """Gives a trigger rules for approvals, or takes them from it."""
        self._set(number, approvals=[RULES, None][number // 4 % 2])

    def break_headers(self, number: int) -> None:
        """Makes the headers of a trigger unreadable, or readable again."""
        execute(BREAK, {"id": self.triggers[2 + number % 2]})

    def change_token(self, number: int) -> None:
        """Lets the token of the connection come to its end, or makes it fresh for a year."""
        until = self.now if number % 2 else self.now + timedelta(days=365)
        Connection.objects.update(fresh_until=until)

    def _set(self, number: int, **columns: Any) -> int:
        live = Trigger.objects.filter(id=self.triggers[number % 4], deleted_at=None)
        return live.update(**columns)

    # --- What happens to the environment and its pools

    def pause(self, number: int) -> None:
        paused_at = self.now if number % 2 else None
        Environment.objects.filter(id=self.cast.environment.id).update(paused_at=paused_at)

    def join(self, number: int) -> None:
        PoolMember.objects.get_or_create(
            environment_id=self.cast.environment.id,
            worker_id=self.workers[number % 3],
            pool_id=self.pools[number // 3 % 2],
        )

    def leave(self, number: int) -> None:
        members = PoolMember.objects.filter(pool_id=self.pools[number % 2])
        members.filter(worker_id__in=self.workers[number // 2 % 3 :]).delete()

    # --- What happens to workers

    def disable(self, number: int) -> None:
        self._change(number, disabled_at=self.now if number % 2 else None)

    def open_to_pools(self, number: int) -> None:
        """Leaves the runs that are for a worker first to the others, as when it is disabled."""
        open_to_pools([self.workers[number % 3]])

    def limit(self, number: int) -> None:
        until = self.now + timedelta(minutes=5) if number % 2 else None
        self._change(number, limited_until=until)

    def resize(self, number: int) -> None:
        self._change(number, max_concurrency=1 + number % 3)

    def unapprove(self, number: int) -> None:
        self._change(number, unapproved_since=self.now if number % 2 else None)

    def change_features(self, number: int) -> None:
        """Lets a worker take approvals, or not any more."""
        self._change(number, features=["approvals"] if number % 2 == 0 else [])

    def revoke(self, number: int) -> None:
        digest = None if number % 2 else self.digests[number // 2 % 3]
        self._change(number, token_digest=digest)

    def call_all(self, _: int) -> None:
        Worker.objects.filter(id__in=self.workers).update(last_seen_at=self.now)

    def budget(self, number: int) -> None:
        """Gives the environment, or one of its triggers, a budget for one run or for none, or deletes all budgets."""
        if number % 8 == 7:
            Budget.objects.update(deleted_at=self.now)
            return
        trigger_id = self.triggers[number // 2 % 4] if number % 3 else None
        limit = {"limit_runs": number % 3} if number % 2 else {"limit_usd": "1"}
        reserve = "0.6" if number % 4 else "1.1"
        if trigger_id is not None and not Trigger.objects.filter(
            id=trigger_id, deleted_at__isnull=True
        ):
            return  # The service refuses a budget of a deleted trigger.
        add_budget(self.cast, trigger_id=trigger_id, reserve_usd=reserve, **limit)

    def call(self, number: int) -> None:
        self._change(number, last_seen_at=self.now if number % 2 else None)

    def hold(self, number: int) -> None:
        """Queues a run, and lets a worker claim the first that it gets, and keep it."""
        self.queue(number)
        self._claim_first(self.workers[number // 4 % 3])

    def fail(self, number: int) -> None:
        """Lets a worker claim a run and fail it, so that a retry waits. The run has a session and has had
        an effect, and its account may have reached a usage limit.
        """
        worker_id = self.workers[number % 3]
        if run := self._claim_first(worker_id):
            report: dict[str, Any] = {"toolCalls": {"total": 1, "effects": 1, "unknown": 0}}
            if number % 4 == 0:
                resets = self.now + timedelta(minutes=2)
                report["usageLimit"] = {"resetsAt": resets.isoformat(), "kind": "five_hour"}
            runs = self.runs()
            runs.start(run, worker_id=worker_id)
            runs.complete(
                run, "failed", worker_id=worker_id, faultClass="infra", sessionId="s", **report
            )

    def ask(self, number: int) -> None:
        """Lets a worker claim a run and ask for an approval."""
        worker_id = self.workers[number % 3]
        if run := self._claim_first(worker_id):
            runs = self.runs()
            runs.start(run, worker_id=worker_id)
            runs.ask(run, worker_id=worker_id)

    def decide(self, number: int) -> None:
        waiting = list(Run.objects.filter(status=Status.WAITING).order_by("id").values_list("id"))
        if waiting:
            # A conflict says that it has expired.
            with contextlib.suppress(Conflict):
                self.runs().decide(waiting[number % len(waiting)][0], approve=number % 2 == 0)

    def _claim_first(self, worker_id: UUID) -> UUID | None:
        """Lets a worker poll and claim the first run, which it returns."""
        for run in self.poll(worker_id)[:1]:
            self.runs().claim(run, worker_id=worker_id)
            return run
        return None

    def _change(self, number: int, **columns: Any) -> None:
        Worker.objects.filter(id=self.workers[number // 2 % 3]).update(**columns)

    # --- What is compared

    def online(self) -> list[UUID]:
        """Returns the workers that poll: they have a token and have called lately."""
        calling = Worker.objects.filter(
            id__in=self.workers,
            token_digest__isnull=False,
            last_seen_at__gt=self.now - ONLINE_WITHIN,
        )
        return list(calling.values_list("id", flat=True))

    def poll(self, worker_id: UUID) -> list[UUID]:
        """Polls as the endpoint does, and returns the runs that the worker gets."""
        if not Worker.objects.filter(id=worker_id, token_digest__isnull=False).exists():
            return []
        limits = locked_limits(worker_id, self.now)
        runs = hand_out_runs(worker_id=worker_id, **limits, actor=SYSTEM, now=self.now)
        return [run.row["id"] for run in runs]

    def can_claim(self, worker_id: UUID, run_id: UUID) -> bool:
        """Claims as the endpoint does, takes it back, and returns whether it succeeded."""
        try:
            with transaction.atomic():
                self.runs().claim(run_id, worker_id=worker_id)
                transaction.set_rollback(True)
        except (Conflict, NotFound):
            return False
        return True

    def check(self) -> None:
        """Compares what explanations say with what polls and claims do."""
        online = self.online()
        polled = {run for worker in online for run in self.poll(worker)}
        runs = Run.objects.filter(trigger_id__in=self.triggers).order_by("available_at", "id")
        # The queued runs in their order, without those that go to nobody because their headers can't be read.
        readable: list[UUID] = []
        places: list[tuple[Reason, int, RunExplanation]] = []
        for run_id in runs.values_list("id", flat=True):
            told = explain_run(run_id, now=self.now)
            assert told is not None
            assert (told.ended is None) == (told.status not in TERMINAL)
            if told.status != Status.QUEUED:
                waits = [WaitingFor.AWAITING_APPROVAL] if told.status == Status.WAITING else []
                assert [reason.code for reason in told.waiting_for] == waits
                continue
            codes = {reason.code for reason in told.waiting_for}
            main = codes - ASIDES or codes
            if len(main) < 2:
                seen.update(main or [None])
            assert (run_id in polled) == (not codes), told
            claimable = any(self.can_claim(worker, run_id) for worker in online)
            assert claimable == (not main - OF_POLLS_ALONE), told
            places += [
                (reason, len(readable), told)
                for reason in told.waiting_for
                if reason.code == WaitingFor.BEHIND_OTHERS
            ]
            if WaitingFor.HEADERS_UNREADABLE not in codes:
                readable.append(run_id)
        self.check_places(places, readable)

    def check_places(
        self, places: list[tuple[Reason, int, RunExplanation]], readable: list[UUID]
    ) -> None:
        """Checks that as many of the runs before a run go to the reason's worker as the reason says. For each reason
        there is the number of readable runs before its run.
        """
        of_worker: dict[UUID, list[bool]] = {}
        for reason, before, told in places:
            assert reason.subject is not None
            worker_id = reason.subject.id
            if worker_id not in of_worker:
                of_worker[worker_id] = self.would_take(worker_id, readable)
            assert reason.place == sum(of_worker[worker_id][:before]) + 1, told

    def would_take(self, worker_id: UUID, runs: list[UUID]) -> list[bool]:
        """Returns for each run whether the worker could claim it if it had room for any number."""
        with transaction.atomic():
            execute(
                "UPDATE worker SET max_concurrency = 50, disabled_at = NULL, limited_until = NULL WHERE id = %(id)s",
                {"id": worker_id},
            )
            taken = [self.can_claim(worker_id, run) for run in runs]
            transaction.set_rollback(True)
        return taken


ACTIONS: list[Callable[[World, int], None]] = [
    *[World.queue] * 7,
    *[World.hold] * 4,
    *[World.fail] * 4,
    *[World.ask] * 2,
    *[World.decide] * 3,
    World.set_rules,
    World.change_features,
    *[World.reassign] * 2,
    *[World.resize] * 2,
    *[World.time_passes] * 3,
    *[World.a_night_passes] * 2,
    *[World.call_all] * 4,
    World.cancel,
    World.delete_trigger,
    World.disable_trigger,
    *[World.limit_trigger] * 2,
    World.set_deadline,
    *[World.resume] * 2,
    *[World.break_headers] * 2,
    World.change_token,
    World.pause,
    World.join,
    World.leave,
    *[World.disable] * 2,
    World.open_to_pools,
    World.limit,
    World.unapprove,
    *[World.revoke] * 2,
    World.call,
    *[World.budget] * 2,
]


# States that chance brings about too rarely: a run without a worker, a trigger at its limit, a full pool, a retry that
# only the worker may take that failed before, a session that nobody continued in time, a start deadline that passed, a
# worker at its usage limit, one without a token, a pool whose workers are away, a retry that is not due, a budget
# without room, a pool without workers, a disabled worker, a full one, one that nobody approved, one that is away, a
# paused environment, headers that can't be read, a connection without a fresh token, a worker that can't wait for
# approvals, and a decision after which its worker did not come back.
RARE: list[list[tuple[Callable[[World, int], None], int]]] = [
    [(World.queue, 0), (World.reassign, 11)],
    [(World.limit_trigger, 0), (World.resize, 1), (World.hold, 0), (World.queue, 0)],
    [(World.resize, 3), (World.hold, 1), (World.hold, 5), (World.queue, 1)],
    [(World.queue, 1), (World.fail, 3), (World.leave, 2), (World.time_passes, 1)],
    [(World.resume, 0), (World.queue, 0), (World.fail, 3), (World.a_night_passes, 0)],
    [(World.set_deadline, 0), (World.queue, 0), (World.time_passes, 3)],
    [(World.queue, 0), (World.limit, 1)],
    [(World.queue, 0), (World.revoke, 1)],
    [(World.queue, 1), (World.time_passes, 4)],
    [(World.queue, 0), (World.fail, 3)],
    [(World.queue, 0), (World.budget, 0)],
    [(World.leave, 0), (World.queue, 1)],
    [(World.queue, 0), (World.disable, 1)],
    [(World.hold, 0), (World.queue, 0)],
    [(World.queue, 0), (World.unapprove, 1)],
    [(World.queue, 0), (World.call, 0)],
    [(World.queue, 0), (World.pause, 1)],
    [(World.queue, 2), (World.break_headers, 0)],
    [(World.queue, 2), (World.change_token, 1)],
    [(World.change_features, 1), (World.set_rules, 0), (World.queue, 0)],
    [
        (World.change_features, 0),
        (World.set_rules, 0),
        (World.queue, 0),
        (World.ask, 0),
        (World.decide, 0),
        (World.time_passes, 5),
    ],
]


def make_world(cast: Cast) -> World:
    workers = [cast.worker, cast.register("two", max_concurrency=2), cast.register_by_key("three")]
    ids = [worker.worker_id for worker in workers]
    pools = [add_pool(cast, *ids[:2], name="a"), add_pool(cast, *ids[1:], name="b")]
    homes = [(ids[0], None), (None, pools[0]), (ids[1], pools[0]), (ids[2], pools[1])]
    triggers = [
        cast.add_trigger(
            worker_id=worker_id,
            pool_id=pool_id,
            mcp_headers={"X-Key": "planted-header-value"} if n > 1 else {},
        )
        for n, (worker_id, pool_id) in enumerate(homes)
    ]
    connection = add_oauth_connection(cast, lives=31_536_000)
    Trigger.objects.filter(id=triggers[2]).update(
        connection_id=connection.id, mcp_url=connection.mcp_url
    )
    digests = dict(Worker.objects.filter(id__in=ids).values_list("id", "token_digest"))
    return World(cast, ids, [bytes(digests[id_] or b"") for id_ in ids], pools, triggers)


def test_a_queued_run_has_no_reason_exactly_when_a_worker_that_polls_gets_it(cast: Cast) -> None:
    world = make_world(cast)
    begin = world.now

    def check(steps: list[tuple[Callable[[World, int], None], int]]) -> None:
        world.now = begin
        with transaction.atomic():
            world.call_all(0)
            for action, number in steps:
                action(world, number)
            world.check()
            transaction.set_rollback(True)

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 47)), min_size=8, max_size=18)
    )
    def holds(steps: list[tuple[Callable[[World, int], None], int]]) -> None:
        check(steps)

    seen.clear()
    for rare in RARE:
        check(rare)
    holds()
    assert set(seen) >= CODES | {None}, (CODES | {None}) - set(seen)
