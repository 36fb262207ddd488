"""Refuses requests for runs while a budget that rejects them is reached (SPEC §17)."""

from datetime import datetime
from uuid import UUID

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.sql import Row, fetch_all
from triggers.budgets.room import REACHED, REACHED_FOR_ALL
from triggers.models import Budget


def reached_budgets(
    *, run_id: UUID, worker_id: UUID | None, now: datetime | None = None
) -> list[Row]:
    """Returns the budgets that keep a worker from taking a queued run. Each has `amount`, which the run would reserve,
    `ends_at` of its present window, `never_has_room` (whether the limit is too small for the run), and `now`.
    """
    return fetch_all(REACHED, {"run_id": run_id, "worker_id": worker_id, "now": now})


def check_budgets(*, run_id: UUID, now: datetime | None = None) -> None:
    """Raises Conflict if a budget that rejects requests has no room for this run, which the request has queued. A run
    of a pool has room if a subscription pays for one of the pool's workers.
    """
    for budget in fetch_all(REACHED_FOR_ALL, {"run_id": run_id, "now": now}):
        if budget["when_reached"] == Budget.WhenReached.REJECT:
            raise Conflict(
                f"The budget {budget['name']} has no room for another run.",
                code=ErrorCode.BUDGET_EXHAUSTED,
            )
