"""Whatever is killed in the middle of claims and ends of runs, budgets and ledger agree to the last digit.

Forks of the test play the web processes and the scheduler. Each of them is killed (kill -9) after a random time.
"""

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import DatabaseError

from notices.budgets import find_reached_budgets
from pipedai.api.errors import ApiError
from pipedai.sql import database_now, execute, fetch_all, fetch_one
from testing.probes.budget_use import complaints_about_budgets
from testing.processes.forks import forked, kill
from testing.world.budgets import add_budget
from testing.world.runs import Runs, allow
from triggers.models import Budget, BudgetWindow, Run
from triggers.runs import lifecycle

pytestmark = pytest.mark.long

SECONDS = float(os.environ.get("BUDGET_KILL_SECONDS", "1.5"))


def act_as_web(runs: Runs, rng: random.Random) -> None:
    """Makes one random call for a random run."""
    runs.now = database_now()
    choices: list[tuple[dict[str, str], Callable[[UUID], object]]] = [
        ({}, lambda _: runs.queue()),
        ({"status": "queued"}, runs.claim),
        ({"status": "queued"}, runs.claim),
        ({"status": "claimed"}, runs.start),
        ({"status": "running"}, lambda run: runs.complete(run, costUsd=_cost(rng))),
        ({"status": "claimed"}, lambda run: runs.complete(run, "failed")),
        ({"ended_by": "lease"}, lambda run: runs.complete(run, costUsd=_cost(rng))),
    ]
    where, call = rng.choice(choices)
    ids = list(Run.objects.filter(**where).values_list("id", flat=True)[:50])
    if ids:
        call(rng.choice(ids))


def act_as_scheduler(runs: Runs, rng: random.Random) -> None:
    lifecycle.expire_runs(limit=rng.randrange(1, 5))
    find_reached_budgets()
    # Retries would wait for 30 s.
    execute(
        "UPDATE run SET available_at = queued_at WHERE status = 'queued' AND source = 'retry'", {}
    )
    time.sleep(0.02)


def _cost(rng: random.Random) -> str | None:
    return rng.choice([None, f"{rng.randrange(1, 2_000_000) / 1_000_000:.6f}"])


def acting(act: Callable[[Runs, random.Random], None], runs: Runs, seed: int) -> int:
    """Starts a process that acts until it is killed, and returns its pid."""
    rng = random.Random(seed)

    def act_for_ever() -> None:
        while True:
            with suppress(ApiError, DatabaseError):
                act(runs, rng)

    return forked(act_for_ever)


def test_kills_leave_budgets_and_ledger_in_agreement(committed_runs: Runs, settings) -> None:
    settings.RUN_LEASE_SECONDS = 1
    runs = committed_runs
    allow(runs.cast.worker.worker_id, 20)
    wide = add_budget(runs.cast, limit_usd="30", reserve_usd="0.7")
    add_budget(runs.cast, limit_runs=10_000, trigger_id=runs.trigger_id, reserve_usd="1.000001")
    for _ in range(30):
        runs.queue()
    rng = random.Random(24)
    acts = [act_as_web, act_as_web, act_as_scheduler]
    pids = [acting(act, runs, rng.randrange(2**32)) for act in acts]
    try:
        begun = time.monotonic()
        while time.monotonic() < begun + SECONDS or not _enough_has_ended(begun):
            time.sleep(rng.uniform(0.05, 0.25))
            number = rng.randrange(len(pids))
            kill(pids[number])
            pids[number] = acting(acts[number], runs, rng.randrange(2**32))
    finally:
        for pid in pids:
            kill(pid)
    _wait_for_the_server()
    assert complaints_about_budgets(_all) == []
    _assert_never_overspent(wide)
    lifecycle.expire_runs(limit=1000, now=database_now() + timedelta(days=1))
    assert complaints_about_budgets(_all) == []
    assert set(BudgetWindow.objects.values_list("reserved_usd", flat=True)) == {0}


def _enough_has_ended(begun: float) -> bool:
    """Whether enough runs have ended to look at. A busy machine takes longer, and fails after a minute."""
    assert time.monotonic() < begun + SECONDS + 60, "too little happened"
    return Run.objects.filter(ended_at__isnull=False).count() > 10


def _all(statement: str) -> list:
    return fetch_all(statement, {})


def _assert_never_overspent(budget: Budget) -> None:
    """What was spent beyond the limit is at most what single runs cost beyond what was reserved for them."""
    row = fetch_one(
        "SELECT w.spent_usd + w.reserved_usd - %(limit)s AS beyond,"
        " sum(greatest(0, x.cost_usd - x.amount_usd)) AS overrun"
        " FROM budget_window w JOIN run_reservation x ON x.window_id = w.id"
        " WHERE w.budget_id = %(id)s GROUP BY w.id",
        {"id": budget.id, "limit": budget.limit_usd},
    )
    assert row is not None
    assert row["beyond"] <= (row["overrun"] or 0)


def _wait_for_the_server() -> None:
    """Waits until PostgreSQL has noticed that the killed clients are gone, and has rolled their transactions back."""
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + 60
    while _all(others):
        assert time.monotonic() < deadline
        time.sleep(0.02)
