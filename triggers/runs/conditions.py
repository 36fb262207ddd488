"""The conditions under which a queued run is given to a worker that polls, and may be claimed by it (SPEC §6, §19).

Each condition stands here once. The statements of the poll and of the claim are made of them, and so is the
explanation of why a run waits (`triggers.explain`), so that an explanation names the very condition that holds the run
back.

The SQL conditions are about a run with the alias `r` and its trigger with the alias `t`. Their parameters are `now`,
`worker_id`, and those of `Limits`.
"""

from datetime import datetime, timedelta
from typing import TypedDict
from uuid import UUID

from pipedai.sql import NOW, Row, fetch_one
from triggers.budgets.room import BUDGETS_HAVE_ROOM

# A worker counts as online if it polled or sent a heartbeat within this time (SPEC §5).
ONLINE_WITHIN = timedelta(seconds=180)

# The run is assigned to the worker. A run whose trigger has no worker is assigned to none.
IS_ASSIGNED = "r.worker_id = %(worker_id)s"
IS_QUEUED = "r.status = 'queued'"
# The run's waiting time, such as that of a retry, is over.
IS_DUE = f"r.available_at <= {NOW}"
# A worker that is not approved gets no run whose trigger has secret headers.
HEADERS_MAY_GO = "(%(approved)s OR t.mcp_headers IS NULL)"
# The conditions that a run must meet for any worker to get it. Two more are not part of this text: the worker must have
# room for the run, and no other run may come before it.
MAY_BE_CLAIMED = (
    f"{IS_ASSIGNED} AND {IS_QUEUED} AND {IS_DUE} AND {HEADERS_MAY_GO} AND {BUDGETS_HAVE_ROOM}"
)

# The order in which a worker gets its due runs: those that have been due longest come first.
HAND_OUT_ORDER = "r.available_at, r.id"

# The condition for the runs that the worker holds: it has claimed them, and they have not ended. It is for the table
# `run` without an alias.
IS_HELD = "worker_id = %(worker_id)s AND slot IS NOT NULL"
# How many more runs the worker may claim. A worker may hold more runs than its capacity, if the capacity was lowered.
FREE_PLACES = f"greatest(0, %(capacity)s - (SELECT count(*) FROM run WHERE {IS_HELD}))"

# Evaluates for one run and one worker each condition that can hold a queued run back.
_EVALUATE = f"""
SELECT {IS_DUE} AS is_due, {HEADERS_MAY_GO} AS headers_may_go, {FREE_PLACES} AS free_places,
    {BUDGETS_HAVE_ROOM} AS budgets_have_room,
    (SELECT max(claimed_at) FROM run WHERE {IS_HELD}) AS last_claimed_at
FROM run r JOIN trigger t ON t.id = r.trigger_id WHERE r.id = %(run_id)s
"""


class Limits(TypedDict):
    """What a worker may take: the most runs that it may hold at once, and whether an admin has approved it for runs
    with secret headers.
    """

    capacity: int
    approved: bool


def limits_of(*, max_concurrency: int, disabled: bool, approved: bool) -> Limits:
    """Returns the limits of a worker. A disabled worker may hold no run."""
    return {"capacity": 0 if disabled else max_concurrency, "approved": approved}


def evaluate(
    *,
    run_id: UUID,
    worker_id: UUID | None,
    capacity: int,
    approved: bool,
    now: datetime | None = None,
) -> Row:
    """Returns for a queued run and its worker which conditions hold: `is_due`, `headers_may_go`, `budgets_have_room`
    and `free_places`.

    `last_claimed_at` is when the worker claimed the last of the runs that it holds, or None if it holds none. Without a
    worker only `is_due` counts. The refusal of a claim and the explanation of a waiting run both use this result.
    """
    params = {
        "run_id": run_id,
        "worker_id": worker_id,
        "capacity": capacity,
        "approved": approved,
        "now": now,
    }
    found = fetch_one(_EVALUATE, params)
    assert found is not None, "a queued run is never deleted"
    return found
