"""Finds out by `choose_runs`, as a poll does, whether other runs go before a run at every worker (SPEC §13)."""

from dataclasses import dataclass
from datetime import datetime

from pipedai.sql import Row, fetch_all, fetch_row
from triggers.explain.candidates import limits_of_candidate, room_of
from triggers.runs.conditions import about, first_due
from triggers.runs.handout import MOST_AT_ONCE, choose_runs, shut_triggers_of_environment

# At most this many runs ahead of a run are counted, so that the explanation of a run behind 100,000 others takes no
# longer than others.
MOST_COUNTED = 1000

# Due runs that a worker gets before the run. The runs of the triggers in `shut` do not count: no worker gets them,
# because their headers can't be decrypted.
_IS_AHEAD = """r.trigger_id <> ALL(%(shut)s::uuid[])
    AND (r.available_at, r.id) < (%(available_at)s::timestamptz, %(run_id)s::uuid)"""
_AHEAD = f"""
SELECT count(*) AS ahead FROM (
    SELECT FROM ({first_due(_IS_AHEAD, own=MOST_COUNTED, of_each_pool=MOST_COUNTED)}) first
    LIMIT {MOST_COUNTED}) ahead
"""

_AHEAD_OF_EACH = first_due(_IS_AHEAD, own=MOST_AT_ONCE, of_each_pool=MOST_AT_ONCE, at_most="c.room")
# Finds among workers the one that will come to the run first. It counts at most as many runs as a worker has room for,
# which is enough to know whether the worker's next poll returns the run.
_SOONEST = f"""
SELECT c.id
FROM unnest(%(worker_ids)s::uuid[], %(rooms)s::int[], %(unapproved_since)s::timestamptz[],
    %(takes_approvals)s::boolean[]) AS c (id, room, unapproved_since, takes_approvals)
CROSS JOIN LATERAL (SELECT least(count(*), c.room) AS n FROM ({about(_AHEAD_OF_EACH, "c")}) first) ahead
ORDER BY ahead.n >= c.room, ahead.n, c.room DESC, c.id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The worker that will come to a run first, and how many due runs it gets before: MOST_COUNTED at most."""

    worker: Row
    ahead: int


def find_place(run: Row, workers: list[Row], *, now: datetime | None) -> QueuePlace | None:
    """Returns where the run stands at the candidate that comes to it first. Returns None if the next poll of one of
    them returns it, or if none has room and no run goes first. It takes two polls and three statements at most.
    """
    with_room = [worker for worker in workers if room_of(worker)]
    worker = max(with_room or workers, key=room_of)
    if with_room and _gets(worker, run, now):
        return None
    params = {
        "run_id": run["id"],
        "environment_id": run["environment_id"],
        "available_at": run["available_at"],
        "shut": shut_triggers_of_environment(environment_id=run["environment_id"], now=now),
        "now": now,
    }
    if len(with_room) > 1:
        soonest = _soonest(with_room, params)
        if soonest is not worker and _gets(soonest, run, now):
            return None
        worker = soonest
    limits = limits_of_candidate(worker)
    params |= {**limits, "worker_id": worker["worker_id"]}
    found = fetch_row(_AHEAD, params)
    return QueuePlace(worker, found["ahead"]) if with_room or found["ahead"] else None


def _gets(worker: Row, run: Row, now: datetime | None) -> bool:
    """Returns whether the worker's next poll returns the run."""
    chosen = choose_runs(worker_id=worker["worker_id"], **limits_of_candidate(worker), now=now)
    return any(each.row["id"] == run["id"] for each in chosen)


def _soonest(workers: list[Row], params: Row) -> Row:
    ids = [worker["worker_id"] for worker in workers]
    given = {
        "worker_ids": ids,
        "rooms": [min(MOST_AT_ONCE, room_of(worker)) for worker in workers],
        "unapproved_since": [worker["unapproved_since"] for worker in workers],
        "takes_approvals": [worker["takes_approvals"] for worker in workers],
    }
    (found,) = fetch_all(_SOONEST, {**params, **given})
    return workers[ids.index(found["id"])]
