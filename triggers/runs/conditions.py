"""The conditions under which a worker is given a queued run, and may claim it.

Each condition is written here once, and the poll, the claim and the explanation use it. The SQL is about a run `r` and
its trigger `t`. Its parameters are `now`, `worker_id`, and those of `Limits`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NotRequired, TypedDict, Unpack
from uuid import UUID

from pipedai.sql import NOW, Row, fetch_row
from triggers.budgets.spending import (
    BUDGETS,
    BUDGETS_HAVE_ROOM,
    BUDGETS_HAVE_ROOM_FOR_NEW,
    IS_HOLDING,
    lacks_room,
)

# A worker counts as online if it polled or sent a heartbeat within this time, and has not signed off since.
ONLINE_WITHIN = timedelta(seconds=180)


def is_online(worker: str, now: str = NOW) -> str:
    """Returns the condition that a worker is online at the time `now`, an SQL expression. It is true or false, never
    NULL. `worker` is the alias of the table `worker`.
    """
    seconds = ONLINE_WITHIN.total_seconds()
    return (
        f"(coalesce({worker}.last_seen_at > {now} - interval '{seconds:.0f} seconds', false)"
        f" AND {worker}.signed_off_at IS NULL)"
    )


_ENVIRONMENT = "(SELECT own.environment_id FROM worker own WHERE own.id = %(worker_id)s)"
# The row is in the worker's environment. The other conditions imply this, but with it PostgreSQL reads only one
# partition if the table is partitioned by environment (docs/scaling.md).
OF_ENVIRONMENT = f"environment_id = {_ENVIRONMENT}"
# The run is the worker's own: it is assigned to the worker alone, or to it before the other workers of the run's pool.
IS_OWN = "r.worker_id = %(worker_id)s"
# The run may be taken by any worker of its pool, and the worker is in that pool.
IS_OPEN_TO_POOL = f"r.pool_from <= {NOW}"
IS_IN_POOL = "r.pool_id IN (SELECT m.pool_id FROM pool_member m WHERE m.worker_id = %(worker_id)s)"
IS_OFFERED = f"({IS_OWN} OR ({IS_OPEN_TO_POOL} AND {IS_IN_POOL}))"
# A retry passes over the worker that failed the run before it, until the other workers of the pool have had their time.
IS_NOT_AVOIDED = f"""(r.avoided_worker_id IS DISTINCT FROM %(worker_id)s
        OR r.available_at + t.prefer_seconds * interval '1 second' <= {NOW})"""
IS_QUEUED = "r.status = 'queued'"
# The condition IS_QUEUED for counting the queue of an environment, by the index `run_unfinished_of_status`. Polls don't
# name `ended_at`: PostgreSQL might then take that index, and read the queues of all other workers.
IS_COUNTED_AS_QUEUED = f"{IS_QUEUED} AND r.ended_at IS NULL"
# The run's waiting time, such as that of a retry, is over.
IS_DUE = f"r.available_at <= {NOW}"
# The run's start deadline has not passed. The scheduler ends the run soon after it has.
IS_IN_TIME = f"(r.start_deadline_at IS NULL OR r.start_deadline_at > {NOW})"
# The run can only continue its session, because it must not start anew.
ONLY_RESUMES = "(r.had_effects OR r.spells > 0)"
# The run can continue its session, or it may be started anew. The scheduler soon ends a run that can do neither.
MAY_START = f"NOT ({ONLY_RESUMES} AND r.resume_until <= {NOW})"
# The trigger has secret headers: its own, or those of a connection.
HAS_HEADERS = "(t.mcp_headers IS NOT NULL OR t.connection_id IS NOT NULL)"
# A worker that is not approved gets no run whose trigger has secret headers.
HEADERS_MAY_GO = f"(%(approved)s OR NOT {HAS_HEADERS})"
# The connection `c` has no token, or one that expires too soon for a run to begin with. Headers that a user gave never
# expire. A `failing` connection counts as ready for as long as its last token does.
LACKS_TOKEN = f"(c.headers IS NULL OR c.fresh_until <= {NOW})"
# The trigger's connection, if it has one, lets its runs begin.
CONNECTION_IS_READY = f"""coalesce((SELECT false FROM connection c
        WHERE c.id = t.connection_id AND {LACKS_TOKEN} LIMIT 1), true)"""
# The features, which not every worker has: to let a run wait for an approval, and to look for something new first.
APPROVALS, BEFORE = "approvals", "before"
FEATURES: Final = (APPROVALS, BEFORE)


def _takes(feature: str) -> str:
    return f"'{feature}' = ANY(%(features)s::varchar[])"


# A run goes only to a worker that named the features which it needs. A run that has waited needs `approvals` even if
# its trigger has no rules any more.
HAS_APPROVALS = "t.approvals IS NOT NULL"
_HAS_WAITED = "r.spells > 0"
_RUN_FEATURES_MAY_GO = (
    f"(({_takes(APPROVALS)} OR NOT {_HAS_WAITED}) AND ({_takes(BEFORE)} OR NOT r.looks))"
)
_TRIGGER_FEATURES_MAY_GO = f"({_takes(APPROVALS)} OR NOT {HAS_APPROVALS})"
FEATURES_MAY_GO = f"({_RUN_FEATURES_MAY_GO} AND {_TRIGGER_FEATURES_MAY_GO})"
# The environment is not paused. PostgreSQL evaluates the subquery once for a statement, since it names no run.
IS_NOT_PAUSED = f"(SELECT e.paused_at FROM environment e WHERE e.id = {_ENVIRONMENT}) IS NULL"
# How many more runs of the trigger `t` may be claimed. Only triggers with such a limit are read. The order makes
# PostgreSQL use the index of slots even without statistics, when the index of all runs seems to cost as little.
FREE_IN_TRIGGER = """(t.max_concurrent_runs - (SELECT count(*) FROM (
        SELECT FROM run p
        WHERE p.trigger_id = t.id AND p.environment_id = t.environment_id AND p.trigger_slot IS NOT NULL
        ORDER BY p.trigger_slot) held))"""
# The trigger's limit leaves room for another run.
TRIGGER_HAS_ROOM = f"(t.max_concurrent_runs IS NULL OR {FREE_IN_TRIGGER} > 0)"
# The conditions that a run must meet for any worker to get it, without those about its trigger.
_RUN_MAY_GO_OUT = f"""r.{OF_ENVIRONMENT}
    AND {IS_QUEUED} AND {IS_DUE} AND {IS_NOT_PAUSED} AND {IS_IN_TIME} AND {MAY_START}"""
# The conditions of a claim. Two more are checked elsewhere: the worker must have room for the run, and in a poll no
# other run may come before it.
MAY_BE_CLAIMED = f"""{IS_OFFERED} AND {_RUN_MAY_GO_OUT} AND {HEADERS_MAY_GO} AND {FEATURES_MAY_GO}
    AND {IS_NOT_AVOIDED} AND {CONNECTION_IS_READY} AND {TRIGGER_HAS_ROOM} AND {BUDGETS_HAVE_ROOM}"""


def _in_all_budgets(amount: str) -> str:
    """Returns a condition about budgets that names no run, so that PostgreSQL evaluates it once."""
    return f"""coalesce((SELECT false FROM {BUDGETS}
        WHERE b.{OF_ENVIRONMENT} AND b.deleted_at IS NULL AND b.trigger_id IS NULL
            AND {IS_HOLDING} AND {lacks_room(amount)} LIMIT 1), true)"""


# The triggers of the worker's environment. PostgreSQL reads them once for a statement, because the query names no run.
# So it need not look up the trigger of each run.
_LIVE_TRIGGERS = f"SELECT t.id FROM trigger t WHERE t.{OF_ENVIRONMENT} AND t.deleted_at IS NULL"
_FULL = f"{_LIVE_TRIGGERS} AND t.max_concurrent_runs IS NOT NULL AND NOT {TRIGGER_HAS_ROOM}"
_TOO_DEAR = (
    f"{_LIVE_TRIGGERS} AND t.max_cost_usd IS NULL AND NOT {_in_all_budgets('b.reserve_usd')}"
)
# The query begins with connections, because most of them are ready.
_NOT_READY = f"""SELECT t.id FROM connection c JOIN trigger t ON t.connection_id = c.id
    WHERE c.{OF_ENVIRONMENT} AND {LACKS_TOKEN}"""
_WITH_HEADERS = f"{_LIVE_TRIGGERS} AND {HAS_HEADERS}"
# The same as HEADERS_MAY_GO, for reading a queue.
HEADERS_MAY_GO_FROM_QUEUE = f"(%(approved)s OR r.trigger_id NOT IN ({_WITH_HEADERS}))"
_WITH_APPROVALS = f"{_LIVE_TRIGGERS} AND {HAS_APPROVALS}"
_FEATURES_MAY_GO_FROM_QUEUE = f"""({_RUN_FEATURES_MAY_GO}
        AND ({_takes(APPROVALS)} OR r.trigger_id NOT IN ({_WITH_APPROVALS})))"""
# Below are the conditions under which a run of a queue may go out, and those under which runs of a trigger may.
# Together they say the same as those of a claim. Some follow from others, and let PostgreSQL pass over many rows at
# little cost. This one says that the worker has a run that goes on after a decision. Such a run is in the number of
# runs already, so that a limit of this number does not hold it back, and BUDGETS_HAVE_ROOM alone decides about it.
_HAS_DECIDED = f"""coalesce((SELECT true FROM run d
        WHERE d.worker_id = %(worker_id)s AND d.{OF_ENVIRONMENT} AND d.status = 'queued' AND d.spells > 0
        LIMIT 1), false)"""
_MAY_GO_OUT = f"""{_RUN_MAY_GO_OUT} AND {IS_NOT_AVOIDED} AND ({_in_all_budgets("0")} OR {_HAS_DECIDED})
    AND {HEADERS_MAY_GO_FROM_QUEUE} AND {_FEATURES_MAY_GO_FROM_QUEUE}
    AND r.trigger_id NOT IN (SELECT id FROM no_room) AND r.trigger_id NOT IN (SELECT id FROM not_ready)
    AND (r.spells > 0 OR ({_in_all_budgets("0")} AND r.trigger_id NOT IN (SELECT id FROM too_dear)))"""
_TRIGGER_MAY = f"""t.{OF_ENVIRONMENT} AND t.deleted_at IS NULL AND {HEADERS_MAY_GO}
    AND {_TRIGGER_FEATURES_MAY_GO}
    AND t.id NOT IN (SELECT id FROM no_room) AND t.id NOT IN (SELECT id FROM too_dear)
    AND t.id NOT IN (SELECT id FROM not_ready) AND {BUDGETS_HAVE_ROOM_FOR_NEW}"""
# OFFSET 0 makes PostgreSQL look up the trigger of each run one by one.
_WITH_TRIGGER = f"""CROSS JOIN LATERAL (
        SELECT t.prefer_seconds FROM trigger t WHERE t.id = r.trigger_id AND {BUDGETS_HAVE_ROOM} OFFSET 0) t"""
# PostgreSQL would expect that few runs meet so many conditions, and would read and sort the whole queue, instead of
# reading it in order until it has enough. These joins add no rows, but make PostgreSQL expect a million.
_MANY = "CROSS JOIN generate_series(1, (SELECT 1)) one CROSS JOIN generate_series(1, (SELECT 1)) another"
# How many runs at the head of a queue are looked at one by one. If too few of them may go out, the others are found by
# the triggers whose runs may, because most runs of a long queue may be of triggers that are full.
_HEAD = 1_000

# The order in which a worker gets its due runs: those that have been due longest come first.
HAND_OUT_ORDER = "r.available_at, r.id"


def first_due(
    where: str, *, own: int, of_each_pool: int | None = None, at_most: str | None = None
) -> str:
    """Returns the query for a worker's first due runs: `own` runs of its own, and `of_each_pool` of each pool, those
    that have been open to the pool longest. These numbers are part of the text, because otherwise PostgreSQL expects to
    read a tenth of the queue. `at_most` is SQL for how many runs it really reads.
    """
    of_worker = _first(IS_OWN, where, HAND_OUT_ORDER, own, at_most)
    if of_each_pool is None:
        return of_worker
    mine = f"r.pool_id = m.pool_id AND {IS_OPEN_TO_POOL}"
    of_pool = _first(mine, where, "r.pool_from, r.id", of_each_pool, at_most)
    return f"""{of_worker} UNION (
    SELECT open.* FROM pool_member m CROSS JOIN LATERAL {of_pool} open WHERE m.worker_id = %(worker_id)s)"""


def _first(mine: str, where: str, order: str, most: int, at_most: str | None) -> str:
    """Returns the query for the first `most`, or `at_most`, runs of one queue that may go out. OFFSET 0 makes
    PostgreSQL read them by the index of these runs, and not by that of the whole queue.
    """
    enough = str(most) if at_most is None else f"least({most}, {at_most})"
    head = max(_HEAD, 2 * most)
    queue = f"run r {_MANY} WHERE {mine} AND r.{OF_ENVIRONMENT} AND {IS_QUEUED} AND {IS_DUE} ORDER BY {order}"
    return f"""(
    WITH no_room AS MATERIALIZED ({_FULL}), too_dear AS MATERIALIZED ({_TOO_DEAR}),
    not_ready AS MATERIALIZED ({_NOT_READY}), early AS MATERIALIZED (
        SELECT * FROM (
            SELECT r.* FROM (SELECT r.* FROM {queue} LIMIT {head}) r {_WITH_TRIGGER} {_MANY}
            WHERE {_MAY_GO_OUT} AND {where} ORDER BY {order} LIMIT {most}) r
        LIMIT {enough}
    ), late AS (
        SELECT r.* FROM (
            SELECT t.id, t.prefer_seconds FROM trigger t
            WHERE {IS_NOT_PAUSED} AND {_in_all_budgets("0")} AND (SELECT count(*) FROM early) < {enough}
                AND EXISTS (SELECT FROM {queue} OFFSET {head}) AND {_TRIGGER_MAY} OFFSET 0) t
        CROSS JOIN LATERAL (
            SELECT r.* FROM (
                SELECT r.* FROM run r WHERE r.trigger_id = t.id AND r.ended_at IS NULL
                ORDER BY {HAND_OUT_ORDER} OFFSET 0) r
            WHERE {mine} AND {_RUN_MAY_GO_OUT} AND {IS_NOT_AVOIDED} AND {where}
                AND {_RUN_FEATURES_MAY_GO}
            LIMIT {most}) r
    )
    SELECT * FROM (SELECT * FROM early UNION SELECT * FROM late) r ORDER BY {order} LIMIT {enough})"""


# The condition that the worker holds a run: it has claimed the run, and the run has not ended. It is for the table
# `run` without an alias.
IS_HELD = f"{OF_ENVIRONMENT} AND worker_id = %(worker_id)s AND slot IS NOT NULL"
# How many more runs the worker may claim. A worker may hold more runs than its capacity, if the capacity was lowered.
FREE_SLOTS = f"""greatest(0, %(capacity)s - (
        SELECT count(*) FROM (SELECT FROM run WHERE {IS_HELD} ORDER BY slot) held))"""

# Each condition that can hold a queued run back from a worker, by its name.
EVALUATED = f"""{IS_OFFERED} AS is_offered, {IS_NOT_AVOIDED} AS is_not_avoided, {IS_DUE} AS is_due,
    {IS_IN_TIME} AS is_in_time, {MAY_START} AS may_start, {IS_NOT_PAUSED} AS is_not_paused,
    {TRIGGER_HAS_ROOM} AS trigger_has_room, {HEADERS_MAY_GO} AS headers_may_go,
    {FEATURES_MAY_GO} AS features_may_go, {FREE_SLOTS} AS free_slots, {BUDGETS_HAVE_ROOM} AS budgets_have_room,
    {CONNECTION_IS_READY} AS connection_is_ready, t.connection_id,
    (SELECT w.limited_until FROM worker w WHERE w.id = %(worker_id)s AND w.limited_until > {NOW}) AS limited_until,
    (SELECT max(claimed_at) FROM run WHERE {IS_HELD}) AS last_claimed_at"""
_EVALUATE = (
    f"SELECT {EVALUATED} FROM run r JOIN trigger t ON t.id = r.trigger_id WHERE r.id = %(run_id)s"
)


def about(condition: str, worker: str) -> str:
    """Returns the condition for all workers of a statement, instead of the one in the parameters. `worker` is their
    alias; they are in the environment `environment_id`. The capacity is then not 0 for a disabled or limited worker.
    """
    return (
        condition.replace(_ENVIRONMENT, "%(environment_id)s::uuid")
        .replace("%(worker_id)s", f"{worker}.id")
        .replace("%(capacity)s", f"{worker}.max_concurrency")
        .replace("%(approved)s", f"({worker}.unapproved_since IS NULL)")
        .replace("%(features)s", f"{worker}.features")
    )


class Limits(TypedDict):
    """How many runs a worker may hold at once, whether it is approved for secret headers, and which of FEATURES it has:
    none if the key is missing.
    """

    capacity: int
    approved: bool
    features: NotRequired[Sequence[str]]


NO_FEATURES: Final[Row] = {"features": []}


def limits_of(
    *,
    max_concurrency: int,
    disabled: bool,
    limited: bool,
    approved: bool,
    features: Sequence[str] = (),
) -> Limits:
    """Returns a worker's limits. A disabled worker, and one that is `limited` by a usage limit, may take no run."""
    return {
        "capacity": 0 if disabled or limited else max_concurrency,
        "approved": approved,
        "features": list(features),
    }


def evaluate(
    *,
    run_id: UUID,
    worker_id: UUID | None,
    now: datetime | None = None,
    **limits: Unpack[Limits],
) -> Row:
    """Returns for a queued run and a worker which conditions hold.

    They are `is_offered` to the worker, `is_not_avoided`, `is_due`, `is_in_time`, `may_start`, `is_not_paused`,
    `trigger_has_room`, `headers_may_go`, `features_may_go`, `budgets_have_room`, `connection_is_ready`, and
    `free_slots`, a number. `connection_id` is the connection of the run's trigger, or None. `limited_until` is when the
    worker's usage limit ends, or None if it has none. `last_claimed_at` is when the worker claimed the last of the runs
    that it holds, or None if it holds none. Without a worker, only the conditions about the run itself count. The
    refusal of a claim and the explanation of a waiting run both use this result.
    """
    params = {"run_id": run_id, "worker_id": worker_id, "now": now, **NO_FEATURES, **limits}
    return fetch_row(_EVALUATE, params)


def pool_from(due: str, now: str) -> str:
    """Returns SQL for the time from which the whole pool may take a run that comes due at `due`; NULL without a pool.
    The trigger's worker has `prefer_seconds` for itself, unless at `now` it can't take runs, or no other worker can.
    """
    return f"""CASE WHEN t.pool_id IS NULL THEN NULL
        WHEN t.worker_id IS NOT NULL AND EXISTS (SELECT FROM worker o WHERE o.id = t.worker_id AND {_is_ready(now)})
            AND {_another_is_ready("t.worker_id", now)}
        THEN {due} + t.prefer_seconds * interval '1 second' ELSE {due} END"""


def avoided_worker(failed: str, now: str) -> str:
    """Returns SQL for the worker that a retry passes over: `failed`, if others can take it at `now`, else NULL."""
    return f"""CASE WHEN t.pool_id IS NULL THEN NULL
        WHEN {_another_is_ready(failed, now)} OR EXISTS (
            SELECT FROM worker o WHERE o.id = t.worker_id AND o.id <> {failed} AND {_is_ready(now)})
        THEN {failed} END"""


def _is_ready(now: str) -> str:
    return f"""o.deleted_at IS NULL AND o.token_digest IS NOT NULL AND o.disabled_at IS NULL
    AND (o.limited_until IS NULL OR o.limited_until <= {now})
    AND {is_online("o", now)}"""


def _another_is_ready(worker: str, now: str) -> str:
    return f"""EXISTS (SELECT FROM pool_member m JOIN worker o ON o.id = m.worker_id
            WHERE m.pool_id = t.pool_id AND o.id <> {worker} AND {_is_ready(now)})"""
