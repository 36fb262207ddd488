"""Gives due runs to the workers that ask, by a poll or by `claim-next`, which claims the next run in the same call.

The due runs are read with all that their worker gets. A run that was just offered to one worker of a pool is offered
last to the pool's others.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from itertools import accumulate, takewhile
from threading import RLock
from typing import NamedTuple, Unpack
from uuid import UUID

from django.db import transaction

from pipedai.api.pagination import MAX_PAGE_BYTES
from pipedai.events import Actor
from pipedai.logs import get_logger
from pipedai.sql import NOW, Row, fetch_all, fetch_row
from triggers.budgets.spending import NEXT_WINDOW
from triggers.runs import lifecycle
from triggers.runs.conditions import (
    FEATURES_MAY_GO,
    FREE_IN_TRIGGER,
    FREE_SLOTS,
    HAND_OUT_ORDER,
    HAS_HEADERS,
    HEADERS_MAY_GO,
    IS_DUE,
    IS_OFFERED,
    IS_QUEUED,
    NO_FEATURES,
    OF_ENVIRONMENT,
    Limits,
    first_due,
)
from triggers.runs.headers import SEALED_HEADERS, WITH_SEALED_HEADERS, note_receiver, opened_headers
from triggers.runs.lifecycle import Refused
from triggers.runs.statements import ALLOWS_HOST_TOOLS, LAST_ASKED, RECORD_EVENTS
from triggers.states import HELD, Status

log = get_logger(__name__)

# How many runs, and how many bytes, one answer to a poll may have. There are limits because the whole answer is in
# memory, while a prompt may have 256 KiB and a worker may have claimed a thousand runs. A worker that can take more
# runs claims those of the answer and polls again. A single run may be larger.
MOST_AT_ONCE = 50

MOST_BYTES = MAX_PAGE_BYTES

# How many bytes of JSON a run gets at most of an earlier run's output.
MAX_CARRIED_BYTES = 16 * 1024

# The most bytes that JSON needs for one byte of text: a control character becomes six characters (`\u0001`).
_LONGEST_ESCAPE = 6

# How often runs are chosen again, if another worker was offered or claimed one of them at the same moment. After that,
# a waiting call asks again soon, and any other call is answered as if there were no runs.
MOST_TRIES = 4


@dataclass(frozen=True, slots=True, repr=False)
class HandedOut:
    row: Row
    mcp_headers: dict[str, str]


# For how many seconds a run counts as offered. A worker claims an offered run within milliseconds, but a busy service
# may take a second to answer both calls.
_COUNTS_FOR = 2.0

# After how many seconds a run may count as offered again. Until then other workers can get it, so that workers that
# poll and never claim can't keep it from them for long.
_AGAIN_AFTER = 60.0

# How many offers of an environment are remembered, and of how many environments, to limit the memory.
_MOST, _ENVIRONMENTS = 1_000, 1_000


class _Offer(NamedTuple):
    worker_id: UUID
    at: float


class Offers:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = RLock()
        # The offers by run, the oldest one first.
        self._offers: dict[UUID, _Offer] = {}

    def to_others(self, worker_id: UUID) -> list[UUID]:
        """Returns the runs that other workers were offered a moment ago."""
        with self._lock:
            since = self._clock() - _COUNTS_FOR
            latest = takewhile(
                lambda offered: offered[1].at >= since, reversed(self._offers.items())
            )
            return [run_id for run_id, offer in latest if offer.worker_id != worker_id]

    def add(self, worker_id: UUID, run_ids: Collection[UUID], *, besides: Collection[UUID]) -> bool:
        """Remembers these offers, except `besides`. Returns False and does nothing if another worker has one."""
        new = {*run_ids}.difference(besides)
        with self._lock:
            if not new.isdisjoint(self.to_others(worker_id)):
                return False
            now = self._clock()
            for run_id in new:
                before = self._offers.get(run_id)
                if before is None or before.at < now - _AGAIN_AFTER:
                    self._offers.pop(run_id, None)
                    self._offers[run_id] = _Offer(worker_id, now)
            for oldest in list(self._offers)[:-_MOST]:
                del self._offers[oldest]
        return True


@lru_cache(_ENVIRONMENTS)
def offers_of(_environment_id: UUID) -> Offers:
    return Offers()


_IS_NOT_SHUT = "r.trigger_id <> ALL(%(shut)s::uuid[])"

_RUNS = "run r JOIN trigger t ON t.id = r.trigger_id"

# What somebody decided about the call for which the run last waited, in the form that its worker gets.
_DECISION = """json_build_object('approvalId', asked.id,
        'decision', CASE asked.status WHEN 'approved' THEN 'approve' ELSE 'reject' END, 'tool', asked.tool,
        'argumentsHash', asked.arguments_hash, 'toolSchemaHash', asked.tool_schema_hash, 'reason', asked.reason)"""


def _reading_due(
    runs: str, where: str, *, most: str, last: str = "false", resumed_at: str = NOW
) -> str:
    """Returns the statement that reads due runs until the answer is full, or has `most` runs. The SQL in `runs` and
    `where` says which runs, `last` which of them come last, and `resumed_at` until when a session must last. `weight`
    estimates a run's bytes in the answer; PostgreSQL knows a text's length without reading it. Only the worker of a
    session gets `resume_session_id`.
    """
    return f"""
WITH due AS (
SELECT r.id, r.environment_id, r.trigger_id, t.name AS trigger_name, v.prompt, v.model, t.mcp_url,
    {SEALED_HEADERS}, r.timeout_seconds, x.payload, v.output_schema,
    CASE WHEN r.looks AND r.spells = 0 THEN v.before END AS before, r.look_only, v.carry,
    x.previous_id AS kept_previous_id,
    t.retry_after_effects, t.retry_mode, t.max_cost_usd, {RECORD_EVENTS} AS record_events, r.attempt, r.queued_at,
    CASE WHEN r.resume_until > {resumed_at} AND r.worker_id = %(worker_id)s THEN r.resume_until END AS resume_until,
    CASE WHEN r.resume_until > {resumed_at} AND r.worker_id = %(worker_id)s THEN CASE
        WHEN r.spells > 0 THEN r.session_id
        ELSE (SELECT o.session_id FROM run o WHERE o.id = r.retry_of_id) END END AS resume_session_id,
    t.approvals AS present_rules, asked.rules AS kept_rules, {ALLOWS_HOST_TOOLS} AS allow_host_tools,
    CASE WHEN asked.id IS NOT NULL THEN {_DECISION} END AS decision,
    CASE WHEN t.max_concurrent_runs IS NOT NULL THEN {FREE_IN_TRIGGER} END AS free_in_trigger,
    x.mcp_url AS handed_out_url, x.handed_to[1] AS handed_to, {last} AS is_last, r.available_at,
    1024 + 6 * octet_length(t.name) + octet_length(v.prompt) + coalesce(octet_length(x.payload::text), 0)
        + coalesce(octet_length(v.output_schema::text), 0) + coalesce(octet_length(t.approvals::text), 0)
        + coalesce(octet_length(asked.rules::text), 0) + coalesce(octet_length(v.before::text), 0)
        + CASE v.carry WHEN 'output' THEN {MAX_CARRIED_BYTES} ELSE 0 END
        + 2 * coalesce(octet_length(t.mcp_url), 0)
        + 2 * (coalesce(octet_length(t.mcp_headers), 0) + coalesce(octet_length(c.headers), 0)) AS weight
FROM {runs}
JOIN trigger_revision v ON v.id = r.revision_id
{WITH_SEALED_HEADERS}
LEFT JOIN run_text x ON x.run_id = r.id
{LAST_ASKED}
WHERE {where}
ORDER BY is_last, {HAND_OUT_ORDER}
LIMIT {most}
), weighed AS (
SELECT *, sum(weight) OVER (ORDER BY is_last, available_at, id ROWS UNBOUNDED PRECEDING) AS weight_so_far FROM due
)
SELECT * FROM weighed WHERE weight_so_far <= %(most_bytes)s OR weight_so_far = weight
ORDER BY is_last, available_at, id
"""


@cache
def due(own: int, *, of_each_pool: int | None) -> str:
    """Returns the statement that reads the due runs that a worker may claim: at most the first `own` of its own, and
    `of_each_pool` of each of its pools. Most workers are in no pool, and a statement without pools costs less to plan.
    """
    found = first_due(_IS_NOT_SHUT, own=own, of_each_pool=of_each_pool)
    runs = f"({found}) r JOIN trigger t ON t.id = r.trigger_id"
    last = "false" if of_each_pool is None else "r.id = ANY(%(theirs)s::uuid[])"
    return _reading_due(runs, "true", most=f"least({own}, {FREE_SLOTS})", last=last)


# Reads the run that a worker holds and has claimed with this claimId. If a worker has claimed several runs one by one
# with the same claimId, it reads the first of them.
CLAIMED = _reading_due(
    _RUNS,
    f"r.{OF_ENVIRONMENT} AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL AND r.claim_id = %(claim_id)s"
    f" AND {HEADERS_MAY_GO} AND {FEATURES_MAY_GO}",
    most="1",
    resumed_at="r.claimed_at",
)


def _reading_sealed(environment: str, where: str) -> str:
    """Returns the statement for sealed headers of due runs. It begins with triggers, because most of them have none."""
    return f"""
SELECT t.id AS trigger_id, t.environment_id, {SEALED_HEADERS}
FROM trigger t
{WITH_SEALED_HEADERS}
CROSS JOIN LATERAL (
    SELECT FROM run r
    WHERE r.trigger_id = t.id AND r.ended_at IS NULL AND {where} AND {IS_QUEUED} AND {IS_DUE}
    LIMIT 1) due
WHERE t.{environment} AND t.deleted_at IS NULL AND {HAS_HEADERS}
ORDER BY t.id
"""


SEALED = _reading_sealed(OF_ENVIRONMENT, f"r.{OF_ENVIRONMENT} AND {IS_OFFERED}")

_OF_GIVEN = "environment_id = %(environment_id)s"

SEALED_IN_ENVIRONMENT = _reading_sealed(_OF_GIVEN, f"r.{_OF_GIVEN}")

# Reads until when the worker gets nothing because of its usage limit. Without a limit, it reads which comes first: the
# worker's next own run comes due, the next run is opened to a pool of the worker, or the next window of a budget
# begins.
OUTLOOK = f"""
SELECT coalesce((SELECT limited_until FROM worker WHERE id = %(worker_id)s AND limited_until > {NOW}), least(
    (SELECT min(available_at) FROM run
     WHERE worker_id = %(worker_id)s AND status = 'queued' AND available_at > {NOW}),
    (SELECT min(next.pool_from) FROM pool_member m CROSS JOIN LATERAL (
        SELECT pool_from FROM run WHERE pool_id = m.pool_id AND status = 'queued' AND pool_from > {NOW}
        ORDER BY pool_from LIMIT 1) next
     WHERE m.worker_id = %(worker_id)s),
    {NEXT_WINDOW})) - {NOW} AS until,
    {FREE_SLOTS} > 0 AS has_room
"""


def hand_out_runs(
    *,
    worker_id: UUID,
    has_pools: bool = True,
    actor: Actor,
    most_bytes: int = MOST_BYTES,
    offers: Offers | None = None,
    now: datetime | None = None,
    **limits: Unpack[Limits],
) -> list[HandedOut]:
    """Returns the due runs that a worker may claim, those that have been due longest first. Their number is limited by
    `capacity`, less the runs that it holds, by MOST_AT_ONCE and by `most_bytes` as JSON, but a single run may be
    larger. Only an `approved` worker gets secret headers. `has_pools` is False if the worker is in no pool, which is
    cheaper. With `offers`, a run that was just offered to another worker of its pool comes last.

    One statement reads URL and headers, so that a secret goes only with its URL, and the receiver is stored. A worker
    that polls again gets the same runs, and nothing is written. A run whose headers can't be decrypted stays queued and
    raises an alarm, and another run takes its place.
    """
    runs = choose_runs(
        worker_id=worker_id,
        has_pools=has_pools,
        most_bytes=most_bytes,
        offers=offers,
        now=now,
        **limits,
    )
    runs = _with_past(runs)
    note_receiver((run.row for run in runs), worker_id=worker_id, actor=actor)
    return runs


# Reads what a run `r` gets from earlier runs: the digest of what that success of its revision saw that looked last, and
# the output, or else the message, of the trigger's last success that had something new. The first hand-out of a run
# that is no retry chooses that success; all later hand-outs use the same one.
_PAST = """
SELECT r.id, looked.look_digest AS last_digest, p.id AS previous_id, p.ended_at AS previous_ended_at,
    p.revision_id AS previous_revision_id, coalesce(o.output::text, to_json(p.short_message)::text) AS previous_output
FROM unnest(%(run_ids)s::uuid[], %(firsts)s::boolean[], %(previous_ids)s::uuid[]) AS n (run_id, is_first, previous_id)
JOIN run r ON r.id = n.run_id
JOIN trigger_revision v ON v.id = r.revision_id
LEFT JOIN LATERAL (
    SELECT l.look_digest FROM run l
    WHERE r.looks AND l.revision_id = r.revision_id AND l.environment_id = r.environment_id
        AND l.status = 'succeeded' AND l.look_digest IS NOT NULL AND l.ended_at IS NOT NULL
    ORDER BY l.looked_at DESC, l.id DESC LIMIT 1) looked ON true
LEFT JOIN LATERAL (
    SELECT l.id FROM run l
    WHERE n.is_first AND v.carry = 'output' AND l.trigger_id = r.trigger_id AND l.environment_id = r.environment_id
        AND l.status = 'succeeded' AND NOT l.nothing_new AND l.ended_at IS NOT NULL
    ORDER BY l.ended_at DESC, l.id DESC LIMIT 1) latest ON true
LEFT JOIN run p ON p.id = coalesce(n.previous_id, latest.id)
LEFT JOIN run_result o ON o.run_id = p.id
"""


def _with_past(runs: list[HandedOut], *, is_first: bool = True) -> list[HandedOut]:
    """Adds `last_digest` to runs that look for something new, and `previous` to runs that get an earlier output. It
    takes one statement if there are such runs. `is_first` is false for a run that was claimed before.
    """
    of = [run.row for run in runs if run.row["before"] is not None or run.row["carry"] != "none"]
    if not of:
        return runs
    params = {
        "run_ids": [row["id"] for row in of],
        # A run that was handed out before, and a retry, keep the earlier run that was chosen, even if there was none.
        "firsts": [
            is_first and row["handed_out_url"] is None and row["attempt"] == 1 for row in of
        ],
        "previous_ids": [row["kept_previous_id"] for row in of],
    }
    past = {row["id"]: row for row in fetch_all(_PAST, params)}
    return [HandedOut({**run.row, **past.get(run.row["id"], {})}, run.mcp_headers) for run in runs]


def choose_runs(
    *,
    worker_id: UUID,
    has_pools: bool = True,
    most_bytes: int = MOST_BYTES,
    only_first: bool = False,
    offers: Offers | None = None,
    now: datetime | None = None,
    **limits: Unpack[Limits],
) -> list[HandedOut]:
    """Returns the runs that `hand_out_runs` would give to the worker, or only the first; it writes nothing."""
    params: Row = {
        **NO_FEATURES,
        **limits,
        "worker_id": worker_id,
        "now": now,
        "shut": [],
        "theirs": [],
        "most_bytes": most_bytes,
    }
    own, of_each_pool = 1 if only_first else MOST_AT_ONCE, MOST_AT_ONCE if has_pools else None
    statement = due(own, of_each_pool=of_each_pool)
    if offers is None or not has_pools:
        return _choose(statement, params)
    for _ in range(MOST_TRIES):
        params["theirs"] = offers.to_others(worker_id)
        runs = _choose(statement, params)
        if offers.add(worker_id, [run.row["id"] for run in runs], besides=params["theirs"]):
            break
    return runs


def _choose(statement: str, params: Row) -> list[HandedOut]:
    rows = _fitting(_within_limits(fetch_all(statement, params)), params["most_bytes"])
    runs = _opened(rows)
    if len(runs) == len(rows):
        return runs
    # The triggers whose headers can't be decrypted, among those with due runs of the worker.
    shut = _unreadable(fetch_all(SEALED, params))
    rows = _within_limits(fetch_all(statement, {**params, "shut": shut}))
    return _opened(_fitting(rows, params["most_bytes"]))


def read_claimed(
    *,
    worker_id: UUID,
    claim_id: str,
    approved: bool,
    features: Sequence[str] = (),
    now: datetime | None = None,
) -> HandedOut | None:
    """Returns the run that the worker holds by this `claim_id`, with its trigger's present URL and headers; it writes
    nothing. Returns None if there is no such run, its headers can't be decrypted, or this worker may not get them.
    """
    params = {
        "worker_id": worker_id,
        "claim_id": claim_id,
        "approved": approved,
        "features": list(features),
        "now": now,
        "most_bytes": MOST_BYTES,
    }
    runs = _with_past(_opened(fetch_all(CLAIMED, params)), is_first=False)
    return runs[0] if runs else None


def shut_triggers_of_environment(
    *, environment_id: UUID, now: datetime | None = None
) -> list[UUID]:
    """Returns the triggers whose headers can't be decrypted, among those with due runs."""
    params = {"environment_id": environment_id, "now": now}
    return _unreadable(fetch_all(SEALED_IN_ENVIRONMENT, params))


def _unreadable(sealed: list[Row]) -> list[UUID]:
    return [row["trigger_id"] for row in sealed if opened_headers(row) is None]


def outlook(
    *, worker_id: UUID, capacity: int, now: datetime | None = None
) -> tuple[timedelta | None, bool]:
    """Returns what a worker without a run may expect: when the next run comes due, a budget's window begins or the
    worker's usage limit ends, or None if none of these will happen; and whether it may hold another run.
    """
    row = fetch_row(OUTLOOK, {"worker_id": worker_id, "capacity": capacity, "now": now})
    return row["until"], row["has_room"]


def _within_limits(rows: list[Row]) -> list[Row]:
    """Returns the rows without those that the worker could not claim because of their trigger's limit: of each trigger
    at most as many as it has free slots.
    """
    left = {row["trigger_id"]: row["free_in_trigger"] for row in rows}
    kept = []
    for row in rows:
        if row["free_in_trigger"] is not None:
            if left[row["trigger_id"]] == 0:
                continue
            left[row["trigger_id"]] -= 1
        kept.append(row)
    return kept


def _fitting(rows: list[Row], most_bytes: int) -> list[Row]:
    """Returns as many of the first rows as one answer can hold when they are written as JSON, and at least one."""
    if not rows or rows[-1]["weight_so_far"] * _LONGEST_ESCAPE <= most_bytes:
        return rows
    sums = accumulate(row["weight"] + _escapes(row["prompt"]) for row in rows)
    return rows[: max(1, sum(total <= most_bytes for total in sums))]


def _escapes(text: str) -> int:
    """Returns by how many bytes a text grows when it is written as JSON in the answer."""
    separators = text.count("\u2028") + text.count("\u2029")
    return len(json.dumps(text, ensure_ascii=False)) - len(text) + 3 * separators


def _opened(rows: Iterable[Row]) -> list[HandedOut]:
    """Returns the runs with their headers in plaintext, and leaves out those whose headers cannot be decrypted."""
    opened = ((row, opened_headers(row)) for row in rows)
    return [HandedOut(row, headers) for row, headers in opened if headers is not None]


class Next(NamedTuple):
    """The claimed run with all that the answer needs, or None. `was_late` says that other workers took the runs."""

    run: HandedOut | None
    was_late: bool = False


def claim_next_run(
    *,
    worker_id: UUID,
    claim_id: str,
    start: bool,
    limits: Limits,
    lock_worker: Callable[[], Limits],
    has_pools: bool,
    actor: Actor,
    offers: Offers | None = None,
    now: datetime | None = None,
) -> Next:
    """Claims the first run that `hand_out_runs` would return, and starts it if `start` is set. If the worker holds a
    run that it claimed with this `claim_id`, it returns that run again, so that a call whose answer was lost can be
    repeated; the claim's UPDATE checks this under the worker's lock. `lock_worker` takes this lock and returns the
    worker's limits; it is not called if there is no run. `offers` is as for `hand_out_runs`.
    """
    for _ in range(MOST_TRIES):
        chosen = choose_runs(
            worker_id=worker_id,
            **limits,
            has_pools=has_pools,
            only_first=True,
            offers=offers,
            now=now,
        )
        run, chosen = None, _with_past(chosen)
        if chosen:
            run = _take(chosen[0], worker_id, claim_id, start, lock_worker, actor, now)
        # No run taken? Then this may be a repeated call: return the run that the first call claimed.
        run = run or _claimed_before(worker_id, claim_id, start, limits, actor, now)
        if run is not None or not chosen:
            return Next(run)
    return Next(None, was_late=True)


def _take(
    due: HandedOut,
    worker_id: UUID,
    claim_id: str,
    start: bool,
    lock_worker: Callable[[], Limits],
    actor: Actor,
    now: datetime | None,
) -> HandedOut | None:
    """Claims the run, and notes who receives its headers. Returns None if it can't be claimed any more."""
    with suppress(Refused), transaction.atomic():
        is_limited = due.row["free_in_trigger"] is not None
        claimed = lifecycle.take_run(
            worker_id=worker_id,
            run_id=due.row["id"],
            claim_id=claim_id,
            start=start,
            **lock_worker(),
            actor=actor,
            limited_trigger=due.row["trigger_id"] if is_limited else None,
            once=True,
            then=lambda: note_receiver([due.row], worker_id=worker_id, actor=actor),
            now=now,
        )
        if claimed is not None:
            return _with_cap(claimed["max_cost_usd"], claimed, due)
    return None


def _claimed_before(
    worker_id: UUID,
    claim_id: str,
    start: bool,
    limits: Limits,
    actor: Actor,
    now: datetime | None,
) -> HandedOut | None:
    """Returns the run that the worker holds by this `claim_id`, started if `start`; None if there is none."""
    held = read_claimed(
        worker_id=worker_id,
        claim_id=claim_id,
        approved=limits["approved"],
        features=limits.get("features", ()),
        now=now,
    )
    if held is None:
        return None
    run = lifecycle.read_own_run(held.row["id"], worker_id, now)
    cap = run["max_cost_usd"]
    if start and run["status"] == Status.CLAIMED:
        try:
            run = lifecycle.start_run(worker_id=worker_id, run_id=run["id"], actor=actor, now=now)
        except Refused as refused:
            run = {"status": refused.extra["status"]}
    # The run may have ended since it was read. Then the worker does not hold it any more.
    if run["status"] not in HELD:
        return None
    note_receiver([held.row], worker_id=worker_id, actor=actor)
    return _with_cap(cap, run, held)


def _with_cap(cap: Decimal | None, claimed: Row, due: HandedOut) -> HandedOut:
    return HandedOut({**claimed, **due.row, "max_cost_usd": cap}, due.mcp_headers)
