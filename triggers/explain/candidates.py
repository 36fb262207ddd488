"""Finds the workers that could take a queued run, and what keeps each from it (SPEC §13, §16).

One statement evaluates the conditions of `triggers.runs.conditions` for all of them.
"""

from dataclasses import dataclass
from datetime import datetime

from pipedai.sql import NOW, Row, fetch_all
from triggers.reasons import WaitingFor
from triggers.runs.conditions import (
    EVALUATED,
    FREE_IN_TRIGGER,
    Limits,
    about,
    is_online,
    limits_of,
)

# Evaluates the conditions for the run, and for each worker that could take it: the run's own worker and the workers of
# its pool. If there is no such worker, it returns one row without a worker.
_EVALUATE = f"""
SELECT {about(EVALUATED, "c")},
    CASE WHEN t.max_concurrent_runs IS NOT NULL THEN {FREE_IN_TRIGGER} END AS free_in_trigger,
    r.resume_until > {NOW} AS is_resuming, r.pool_from > greatest({NOW}, r.available_at) AS is_for_worker_first,
    c.id AS worker_id, c.id = r.worker_id AS is_own, c.label, c.max_concurrency, c.disabled_at, c.unapproved_since,
    c.takes_approvals,
    coalesce(c.signed_off_at, c.last_seen_at) AS called_until, c.deleted_at, c.token_digest IS NOT NULL AS has_token,
    {is_online("c")} AS is_online,
    EXISTS (SELECT FROM pool_member m WHERE m.pool_id = r.pool_id AND m.worker_id = c.id) AS is_member
FROM run r JOIN trigger t ON t.id = r.trigger_id
LEFT JOIN LATERAL (
    SELECT w.* FROM (
        SELECT r.worker_id AS id UNION SELECT m.worker_id FROM pool_member m WHERE m.pool_id = r.pool_id) given
    JOIN worker w ON w.id = given.id) c ON true
WHERE r.id = %(run_id)s
ORDER BY c.id
"""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The workers that could take a queued run, and in `run` the conditions of the run itself. `own` is the run's
    worker. `others` are further workers of its pool, which may take it unless it is for its worker alone.
    """

    run: Row
    own: Row | None
    others: list[Row]

    @property
    def is_for_one(self) -> bool:
        """Returns whether only the run's own worker may take it, at present or when it comes due."""
        return self.own is not None and bool(
            self.run["is_resuming"] or self.run["is_for_worker_first"]
        )

    @property
    def pool_is_empty(self) -> bool:
        """Returns whether the run's pool has no worker at all. It does not say whether the run has a pool."""
        return not self.others and not (self.own is not None and self.own["is_member"])

    @property
    def eligible(self) -> list[Row]:
        own = [self.own] if self.own is not None else []
        return own if self.is_for_one else [*own, *self.others]


def find_candidates(run: Row, *, now: datetime | None) -> Candidates:
    """Returns the workers that could take a queued run, a row of `triggers.explain.runs`. It takes one statement."""
    params = {
        "run_id": run["id"],
        "environment_id": run["environment_id"],
        "now": now,
    }
    rows = fetch_all(_EVALUATE, params)
    assert rows, "a queued run is never deleted"
    workers = [row for row in rows if row["worker_id"] is not None]
    return Candidates(
        run=rows[0],
        own=next((row for row in workers if row["is_own"]), None),
        others=[row for row in workers if not row["is_own"]],
    )


def limits_of_candidate(worker: Row) -> Limits:
    return limits_of(
        max_concurrency=worker["max_concurrency"],
        disabled=worker["disabled_at"] is not None,
        limited=worker["limited_until"] is not None,
        approved=worker["unapproved_since"] is None,
        takes_approvals=worker["takes_approvals"],
    )


def room_of(worker: Row) -> int:
    """Returns how many more runs a worker of `find_candidates` may claim: none if it is disabled or limited."""
    free: int = worker["free_slots"]
    return min(limits_of_candidate(worker)["capacity"], free)


def hindrances(worker: Row, *, is_due: bool) -> list[WaitingFor]:
    """Returns what keeps a candidate from taking the run, the most lasting first. Which worker is passed over is known
    only when the run `is_due`.
    """
    holds = {
        WaitingFor.WORKER_REVOKED: not worker["has_token"],
        WaitingFor.WORKER_DISABLED: worker["disabled_at"] is not None,
        WaitingFor.WORKER_LIMITED: worker["limited_until"] is not None,
        WaitingFor.WORKER_OFFLINE: worker["has_token"] and not worker["is_online"],
        WaitingFor.WORKER_UNAPPROVED: not worker["headers_may_go"],
        WaitingFor.WORKER_LACKS_APPROVALS: not worker["approvals_may_go"],
        WaitingFor.BUDGET_EXHAUSTED: not worker["budgets_have_room"],
        WaitingFor.FIRST_WORKER: is_due and not (worker["is_offered"] and worker["is_not_avoided"]),
        WaitingFor.WORKER_FULL: limits_of_candidate(worker)["capacity"] > 0
        and not worker["free_slots"],
    }
    return [code for code, holds_it_back in holds.items() if holds_it_back]
