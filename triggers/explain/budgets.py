"""Explains which budgets hold a queued run back (SPEC §13, §17)."""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from pipedai.api.renderers import counted, money
from pipedai.sql import Row
from triggers.budgets.periods import period_around
from triggers.budgets.room import reached_budgets
from triggers.explain.answers import Reason, Subject
from triggers.explain.clock_words import moment_words
from triggers.reasons import WaitingFor


def budget_reasons(run: Row, *, worker_id: UUID | None, now: datetime | None) -> Iterator[Reason]:
    """Yields a reason for each budget that has no room for the run, a row of `triggers.explain.runs`, if this worker
    claims it. `until` is when the budget's next window begins; None if no window has room for it.
    """
    for budget in reached_budgets(run_id=run["id"], worker_id=worker_id, now=now):
        _, end = period_around(budget["now"], budget["period"], budget["timezone"])
        until = None if budget["never_has_room"] else budget["ends_at"] or end
        yield Reason(
            WaitingFor.BUDGET_EXHAUSTED,
            _message(budget, until),
            Subject("budget", budget["id"], budget["name"]),
            until=until,
            remedy=_remedy(budget),
        )


def _message(budget: Row, until: datetime | None) -> str:
    name, period = budget["name"], budget["period"]
    words = f"Budget {name} has no room for it"
    if budget["limit_runs"] is not None and budget["runs"] >= budget["limit_runs"]:
        words += f": its {counted(budget['limit_runs'], 'run')} of this {period} are used up"
    else:
        left = max(0, budget["limit_usd"] - budget["spent"] - budget["reserved"])
        words += (
            f": of its ${money(budget['limit_usd'])} for this {period}, ${money(budget['spent'])} is spent"
            f" and ${money(budget['reserved'])} reserved"
        )
        if left:
            words += f", and the run would reserve ${money(budget['amount'])}"
    if until is None:
        return f"{words}. It never has room for this run."
    return f"{words}. The next {period} begins at {moment_words(until, budget['now'])}."


def _remedy(budget: Row) -> str:
    limit = "limitRuns" if budget["limit_usd"] is None else "limitUsd"
    if budget["limit_runs"] is not None and budget["runs"] >= budget["limit_runs"]:
        limit = "limitRuns"
    words = f"Raise its limit with PATCH /budgets/:id ({limit})"
    if limit == "limitUsd" and budget["amount"] > 0:
        words += (
            ", or let the run reserve less: lower what a run may cost with PATCH /triggers/:id (maxCostUsd), or what"
            " the budget reserves for it with PATCH /budgets/:id (reserveUsd)"
        )
    return f"{words}."
