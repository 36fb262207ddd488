"""In random histories of runs each budget has spent and reserved what an independent model says.

The model is plain Python. It knows nothing of windows' rows and sums up its list of claims anew each time.
"""

import os
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
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

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from testing.world.budgets import add_budget
from testing.world.cast import TEST_ACTOR, make_cast
from testing.world.runs import Runs, allow
from triggers.budgets.services import BUDGETS
from triggers.models import BudgetWindow, Run, Trigger
from triggers.runs.conditions import limits_of
from triggers.runs.handout import choose_runs
from triggers.runs.lifecycle import Refused
from workers.models import Worker

EXAMPLES = int(os.environ.get("BUDGET_EXAMPLES", "8"))
STEPS = int(os.environ.get("BUDGET_STEPS", "30"))

amounts = st.sampled_from(["0", "0.000001", "0.1", "0.333333", "1", "1.5", "4"])
some_amounts = st.none() | amounts
limits = st.sampled_from([None, "0", "0.5", "1", "2.000001", "3", "10"])
choices = st.integers(0, 30)


@dataclass
class Claim:
    """A run that was claimed in a budget's window: what was reserved, and what it has cost, if it has ended."""

    run_id: UUID
    day: str
    generation: int
    amount: Decimal
    notional: bool
    cost: Decimal | None = None


@dataclass
class ModelBudget:
    """A budget by the day."""

    limit: Decimal | None
    limit_runs: int | None
    reserve: Decimal
    when: str
    counts_notional: bool
    trigger_id: UUID | None
    alive: bool = True
    generation: int = 0
    claims: list[Claim] = field(default_factory=list)

    def has_room(self, amount: Decimal, day: str, *, notional: bool) -> bool:
        if self.when == "notify":
            return True
        here = [
            each for each in self.claims if (each.day, each.generation) == (day, self.generation)
        ]
        if self.limit_runs is not None and len(here) >= self.limit_runs:
            return False
        if self.limit is None or (notional and not self.counts_notional):
            return True
        counted = [each for each in here if self.counts_notional or not each.notional]
        used = sum((_taken(each) for each in counted), Decimal(0))
        return used < self.limit and used + amount <= self.limit


def _taken(claim: Claim) -> Decimal:
    return claim.amount if claim.cost is None else claim.cost


class BudgetHistory(RuleBasedStateMachine):
    """Makes each call on the database and on the model, and compares what can be claimed and what was used."""

    budgets = Bundle("budgets")

    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.example.__exit__(None, None, None)

    @initialize(
        target=budgets, limit=limits, limit_runs=st.sampled_from([None, None, 3]), reserve=amounts
    )
    def make(self, limit: str | None, limit_runs: int | None, reserve: str) -> Any:
        self.cast = make_cast()
        self.worker_id = self.cast.worker.worker_id
        allow(self.worker_id, 50)
        self.runs = Runs.of(self.cast, max_retries=1)
        self.triggers = [self.runs.trigger_id, self.cast.add_trigger()]
        self.model: dict[UUID, ModelBudget] = {}
        self.notional = True
        # How each run that counts stands: `started`, and whether a late report has told its cost.
        self.started: set[UUID] = set()
        self.told_late: set[UUID] = set()
        wide = self.budget(None, "10", None, "1", "hold", True)
        return multiple(wide, self.budget(None, limit, limit_runs, reserve, "hold", True))

    # --- people ---

    @rule(
        target=budgets,
        trigger=st.none() | st.integers(0, 1),
        limit=limits,
        limit_runs=st.sampled_from([None, None, 0, 2, 4]),
        reserve=amounts,
        when=st.sampled_from(["hold", "reject", "notify"]),
        counts=st.booleans(),
    )
    def add(self, trigger, limit, limit_runs, reserve, when, counts) -> UUID:
        return self.budget(trigger, limit, limit_runs, reserve, when, counts)

    @rule(
        budget_id=budgets,
        limit=limits,
        counts=st.booleans(),
        when=st.sampled_from(["hold", "notify"]),
    )
    def change(self, budget_id, limit, counts, when) -> None:
        budget = self.model[budget_id]
        if budget.alive:
            values = {
                "limit_usd": limit and Decimal(limit),
                "count_notional": counts,
                "when_reached": when,
            }
            if values["limit_usd"] is None and budget.limit_runs is None:
                with pytest.raises(Invalid):
                    BUDGETS.update(budget_id, values=values, actor=TEST_ACTOR)
                return
            BUDGETS.update(budget_id, values=values, actor=TEST_ACTOR)
            budget.limit, budget.counts_notional, budget.when = values["limit_usd"], counts, when

    @rule(budget_id=budgets, to=st.none() | st.integers(0, 1))
    def cover_other_runs(self, budget_id, to) -> None:
        budget = self.model[budget_id]
        trigger_id = None if to is None else self.triggers[to]
        if budget.alive and trigger_id != budget.trigger_id:
            BUDGETS.update(budget_id, values={"trigger_id": trigger_id}, actor=TEST_ACTOR)
            budget.trigger_id = trigger_id
            budget.generation += 1

    @rule(budget_id=budgets, really=choices)
    def delete(self, budget_id, really) -> None:
        if self.model[budget_id].alive and really < 5:
            BUDGETS.delete(budget_id, actor=TEST_ACTOR)
            self.model[budget_id].alive = False

    @rule(trigger=st.integers(0, 1), cap=st.sampled_from([None, "0.25", "1", "3"]))
    def cap(self, trigger, cap) -> None:
        rows = Trigger.objects.filter(id=self.triggers[trigger])
        rows.update(max_cost_usd=cap and Decimal(cap))

    @rule()
    def pay_in_another_way(self) -> None:
        self.notional = not self.notional
        mode = "claude_max" if self.notional else "api_key"
        Worker.objects.filter(id=self.worker_id).update(auth_mode=mode)

    # --- runs ---

    @rule(trigger=st.integers(0, 1), claims=st.booleans())
    def queue(self, trigger, claims) -> None:
        refuses = any(
            budget.when == "reject" and not self.room_in(budget, self.triggers[trigger])
            for budget in self.covering(self.triggers[trigger])
        )
        run_id, code = None, None
        try:
            with transaction.atomic():
                run_id = self.runs.queue(trigger_id=self.triggers[trigger])
        except Conflict as conflict:
            code = conflict.code
        assert code == (ErrorCode.BUDGET_EXHAUSTED if refuses else None)
        if run_id is not None and claims:
            self.claim(run_id)

    @rule(choice=choices)
    def claim_one(self, choice) -> None:
        if run_id := self.one(choice, status="queued", available_at__lte=self.runs.now):
            self.claim(run_id)

    @rule(choice=choices)
    def start(self, choice) -> None:
        if run_id := self.one(choice, status="claimed"):
            self.runs.start(run_id)
            self.started.add(run_id)

    @rule(choice=choices, status=st.sampled_from(["succeeded", "failed"]), cost=some_amounts)
    def complete(self, choice, status, cost) -> None:
        if run_id := self.one(choice, status__in=("claimed", "running")):
            self.runs.complete(run_id, status, costUsd=cost)
            self.settle(run_id, cost, is_known=run_id not in self.started)

    @rule(choice=choices)
    def cancel(self, choice) -> None:
        if run_id := self.one(choice, ended_at=None):
            self.runs.cancel(run_id)

    @rule()
    def all_are_lost(self) -> None:
        held = list(
            Run.objects.filter(status__in=("claimed", "running")).values_list("id", flat=True)
        )
        self.runs.wait(seconds=200)
        self.runs.expire()
        for run_id in held:
            self.settle(run_id, None)

    @rule(choice=choices, cost=some_amounts)
    def report_late(self, choice, cost) -> None:
        if run_id := self.one(choice, ended_by="lease", cancel_requested_at=None):
            try:
                self.runs.complete(run_id, costUsd=cost)
            except Refused:
                if run_id in self.told_late:
                    return
                self.told_late.add(run_id)
                if cost is not None:
                    self.settle(run_id, cost)
            else:
                self.settle(run_id, cost, is_known=run_id not in self.started)

    @rule(hours=st.sampled_from([0.01, 1, 12]))
    def time_passes(self, hours) -> None:
        self.runs.wait(hours=hours)

    # --- invariants ---

    @invariant()
    def sums_are_the_model_s(self) -> None:
        found = {
            (row.budget_id, row.generation, row.starts_at.date().isoformat()): (
                row.spent_usd, row.reserved_usd, row.notional_spent_usd, row.notional_reserved_usd, row.runs,
            )
            for row in BudgetWindow.objects.all()
        }  # fmt: skip
        meant: dict[Any, Any] = {}
        for budget_id, budget in getattr(self, "model", {}).items():
            for claim in budget.claims:
                sums = meant.setdefault(
                    (budget_id, claim.generation, claim.day), [Decimal(0)] * 4 + [0]
                )
                sums[4] += 1
                part = 0 if claim.cost is not None else 1
                sums[part] += _taken(claim)
                sums[part + 2] += _taken(claim) if claim.notional else 0
        used = {key: sums for key, sums in found.items() if sums[4]}
        assert used == {key: tuple(sums) for key, sums in meant.items()}

    @invariant()
    def a_poll_returns_the_runs_with_room(self) -> None:
        if not hasattr(self, "model"):
            return
        limits = limits_of(max_concurrency=50, disabled=False, limited=False, approved=True)
        chosen = choose_runs(worker_id=self.worker_id, **limits, now=self.runs.now)
        due = Run.objects.filter(status="queued", available_at__lte=self.runs.now)
        meant = {run.id for run in due if self.has_room(run.trigger_id)}
        assert {each.row["id"] for each in chosen} == meant

    # --- the model ---

    @property
    def day(self) -> str:
        return self.runs.now.date().isoformat()

    def budget(self, trigger, limit, limit_runs, reserve, when, counts) -> UUID:
        values = {
            "trigger_id": None if trigger is None else self.triggers[trigger],
            "limit_usd": limit,
            "limit_runs": limit_runs,
            "reserve_usd": reserve,
            "when_reached": when,
            "count_notional": counts,
        }
        made = add_budget(self.cast, **dict(values))
        self.model[made.id] = ModelBudget(
            limit and Decimal(limit),
            made.limit_runs,
            Decimal(reserve),
            when,
            counts,
            values["trigger_id"],
        )
        return made.id

    def covering(self, trigger_id: UUID) -> list[ModelBudget]:
        return [
            budget
            for budget in self.model.values()
            if budget.alive and budget.trigger_id in (None, trigger_id)
        ]

    def amount(self, budget: ModelBudget, trigger_id: UUID) -> Decimal:
        cap: Decimal | None = Trigger.objects.get(id=trigger_id).max_cost_usd
        return budget.reserve if cap is None else cap

    def room_in(self, budget: ModelBudget, trigger_id: UUID) -> bool:
        amount = self.amount(budget, trigger_id)
        return budget.has_room(amount, self.day, notional=self.notional)

    def has_room(self, trigger_id: UUID) -> bool:
        return all(self.room_in(budget, trigger_id) for budget in self.covering(trigger_id))

    def claim(self, run_id: UUID) -> None:
        trigger_id = Run.objects.get(id=run_id).trigger_id
        has_room = self.has_room(trigger_id)
        was_claimed = True
        try:
            self.runs.claim(run_id)
        except Refused:
            was_claimed = False
        assert was_claimed == has_room
        if not was_claimed:
            return
        for budget in self.covering(trigger_id):
            amount = self.amount(budget, trigger_id)
            budget.claims.append(Claim(run_id, self.day, budget.generation, amount, self.notional))

    def settle(self, run_id: UUID, cost: str | None, *, is_known: bool = False) -> None:
        """Notes what a run has cost: `cost`, or nothing if it `is_known` that it cost none, or what was reserved."""
        for budget in self.model.values():
            for claim in budget.claims:
                if claim.run_id == run_id:
                    claim.cost = claim.amount
                    if cost is not None or is_known:
                        claim.cost = Decimal(cost or 0)

    def one(self, choice: int, **where: Any) -> UUID | None:
        ids = list(Run.objects.filter(**where).order_by("id").values_list("id", flat=True))
        return ids[choice % len(ids)] if ids else None


def test_budgets_have_used_what_the_model_says(db) -> None:
    run_state_machine_as_test(
        BudgetHistory,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
            deadline=None,
        ),
    )
