"""Gives due runs to the workers that ask (SPEC §5, §8, §19, §21). No other module decrypts MCP headers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple, Unpack
from uuid import UUID

from django.db import transaction

from pipedai.api.pagination import MAX_PAGE_BYTES
from pipedai.crypto import CannotOpen
from pipedai.events import Actor, Event, emit
from pipedai.logs import get_logger
from pipedai.sql import NOW, Row, fetch_all, fetch_row
from triggers import secrets
from triggers.budgets.room import NEXT_WINDOW
from triggers.runs.conditions import (
    APPROVALS_MAY_GO,
    FREE_IN_TRIGGER,
    FREE_SLOTS,
    HAND_OUT_ORDER,
    HAS_HEADERS,
    HEADERS_MAY_GO,
    IS_DUE,
    IS_OFFERED,
    IS_QUEUED,
    NO_APPROVALS,
    OF_ENVIRONMENT,
    Limits,
    first_due,
)
from triggers.runs.offers import Offers
from workspaces.connections.secrets import open_headers
from workspaces.encryption.keys import WrappedKey

log = get_logger(__name__)

# How many runs, and how many bytes, one answer to a poll may have. There are limits because the whole answer is in
# memory, while a prompt may have 256 KiB and a worker may have claimed a thousand runs. A worker that can take more
# runs claims those of the answer and polls again. A single run may be larger.
MOST_AT_ONCE = 50
MOST_BYTES = MAX_PAGE_BYTES
# The most bytes that JSON needs for one byte of text: a control character becomes six characters (`\u0001`).
_LONGEST_ESCAPE = 6

# How often runs are chosen anew, if another worker was offered or claimed one of them at the same moment. A call that
# waits then asks again soon; any other is answered as if there were none.
MOST_TRIES = 4

_IS_NOT_SHUT = "r.trigger_id <> ALL(%(shut)s::uuid[])"

# What `opened_headers` reads of a trigger `t`, and the joins for it: its own sealed headers and those of its
# connection, each with its data key.
SEALED_HEADERS = """t.mcp_headers, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id,
    t.connection_id, c.headers AS connection_headers, c.access_expires_at AS headers_expire_at,
    ck.id AS connection_key_id, ck.wrapped AS connection_key_wrapped, ck.master_key_id AS connection_master_key_id"""
WITH_SEALED_HEADERS = """LEFT JOIN data_key k ON k.id = t.mcp_key_id
LEFT JOIN connection c ON c.id = t.connection_id
LEFT JOIN data_key ck ON ck.id = c.headers_key_id"""

_RUNS = "run r JOIN trigger t ON t.id = r.trigger_id"


# What somebody decided about the call for which the run `r` last waited, in the form in which its worker gets it.
_DECISION = """(
        SELECT json_build_object('approvalId', a.id,
            'decision', CASE a.status WHEN 'approved' THEN 'approve' ELSE 'reject' END, 'tool', a.tool,
            'argumentsHash', a.arguments_hash, 'toolSchemaHash', a.tool_schema_hash, 'reason', a.reason)
        FROM approval a WHERE a.run_id = r.id AND a.environment_id = r.environment_id
        ORDER BY a.created_at DESC LIMIT 1)"""


def _reading_due(
    runs: str, where: str, *, most: str, last: str = "false", resumed_at: str = NOW
) -> str:
    """Returns the statement that reads due runs until the answer is full, or `most`. In SQL, `runs` and `where` say
    which, `last` which come last, and `resumed_at` when a session must be alive. `weight` estimates a run's bytes in
    the answer; PostgreSQL knows a text's length without reading it. Only the worker of a session gets
    `resume_session_id`.
    """
    return f"""
WITH due AS (
SELECT r.id, r.environment_id, r.trigger_id, t.name AS trigger_name, v.prompt, v.model, t.mcp_url,
    {SEALED_HEADERS}, r.timeout_seconds, x.payload, v.output_schema,
    t.retry_after_effects, t.retry_mode, t.max_cost_usd, t.record_events, r.attempt, r.queued_at,
    CASE WHEN r.resume_until > {resumed_at} AND r.worker_id = %(worker_id)s THEN r.resume_until END AS resume_until,
    CASE WHEN r.resume_until > {resumed_at} AND r.worker_id = %(worker_id)s THEN CASE
        WHEN r.spells > 0 THEN r.session_id
        ELSE (SELECT o.session_id FROM run o WHERE o.id = r.retry_of_id) END END AS resume_session_id,
    t.approvals AS approval_rules, t.allow_host_tools, CASE WHEN r.spells > 0 THEN {_DECISION} END AS decision,
    CASE WHEN t.max_concurrent_runs IS NOT NULL THEN {FREE_IN_TRIGGER} END AS free_in_trigger,
    x.mcp_url AS handed_out_url, x.handed_to[1] AS handed_to, {last} AS is_last, r.available_at,
    1024 + 6 * octet_length(t.name) + octet_length(v.prompt) + coalesce(octet_length(x.payload::text), 0)
        + coalesce(octet_length(v.output_schema::text), 0) + coalesce(octet_length(t.approvals::text), 0)
        + 2 * octet_length(t.mcp_url)
        + 2 * (coalesce(octet_length(t.mcp_headers), 0) + coalesce(octet_length(c.headers), 0)) AS weight
FROM {runs}
JOIN trigger_revision v ON v.id = r.revision_id
{WITH_SEALED_HEADERS}
LEFT JOIN run_text x ON x.run_id = r.id
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
def _due(own: int, *, with_pools: bool) -> str:
    """Returns the statement that reads the due runs that a worker may claim: the first `own` of its own at most, and
    `with_pools` also those of its pools. Most workers are in no pool, and a statement without them costs less to plan.
    """
    found = first_due(_IS_NOT_SHUT, own=own, of_each_pool=MOST_AT_ONCE if with_pools else None)
    runs = f"({found}) r JOIN trigger t ON t.id = r.trigger_id"
    last = "r.id = ANY(%(theirs)s::uuid[])" if with_pools else "false"
    return _reading_due(runs, "true", most=f"least({own}, {FREE_SLOTS})", last=last)


# Reads the run that a worker holds and has claimed with this claimId. A worker may have claimed several runs one by one
# with the same claimId; then it is the first of them.
_CLAIMED = _reading_due(
    _RUNS,
    f"r.{OF_ENVIRONMENT} AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL AND r.claim_id = %(claim_id)s"
    f" AND {HEADERS_MAY_GO} AND {APPROVALS_MAY_GO}",
    most="1",
    resumed_at="r.claimed_at",
)


def _reading_sealed(environment: str, where: str) -> str:
    """Returns the statement for sealed headers of due runs. It begins with triggers, most of which have none."""
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


_SEALED = _reading_sealed(OF_ENVIRONMENT, f"r.{OF_ENVIRONMENT} AND {IS_OFFERED}")
_OF_GIVEN = "environment_id = %(environment_id)s"
_SEALED_IN_ENVIRONMENT = _reading_sealed(_OF_GIVEN, f"r.{_OF_GIVEN}")

# Reads until when the worker gets nothing because of its usage limit. Without a limit, it reads when the worker's next
# own run comes due, the next run is opened to a pool of the worker, or the next window of a budget begins, whichever is
# first.
_OUTLOOK = f"""
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

# How many receivers of a run's secret headers are stored with the run. A receiver is a worker together with its IP
# address. If a worker changes between a few addresses, an audit row is therefore written once for each address and not
# at every poll.
_REMEMBERED = 20

# Stores with each run the MCP URL that the worker gets, and who receives the secret headers: the receiver, which is a
# worker together with its IP address. `receiver` is NULL if the run has no headers, or if the receiver stored last gets
# them again. With `later` false, the statement changes only rows without a receiver. If two polls do this at the same
# moment, the second one changes and returns no row, and so learns that it was second. With `later` true, the statement
# puts the receiver before the earlier ones, unless the receiver stored last and the stored URL are the same as the new
# ones.
_KEEP = f"""
INSERT INTO run_text AS kept (run_id, environment_id, mcp_url, handed_to)
SELECT run_id, environment_id, url, CASE WHEN receiver IS NOT NULL THEN ARRAY[receiver] END
FROM unnest(%(run_ids)s::uuid[], %(environment_ids)s::uuid[], %(urls)s::text[], %(receivers)s::text[])
    AS u (run_id, environment_id, url, receiver)
ON CONFLICT (run_id) DO UPDATE
SET mcp_url = excluded.mcp_url, handed_to = (excluded.handed_to || kept.handed_to)[1:{_REMEMBERED}]
WHERE CASE WHEN %(later)s
    THEN kept.mcp_url IS DISTINCT FROM excluded.mcp_url OR kept.handed_to[1] IS DISTINCT FROM excluded.handed_to[1]
    ELSE kept.handed_to IS NULL END
RETURNING run_id, handed_to
"""


@dataclass(frozen=True, slots=True, repr=False)
class HandedOut:
    row: Row
    mcp_headers: dict[str, str]


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
    cheaper. With `offers`, a run that others of its pool were just offered comes last.

    URL and headers are read by one statement, so that a secret goes only with its URL, and the receiver is stored. A
    worker that polls again gets the same runs, and nothing is written. A run whose headers can't be decrypted stays
    queued, raises an alarm, and leaves its place to another.
    """
    runs = choose_runs(
        worker_id=worker_id,
        has_pools=has_pools,
        most_bytes=most_bytes,
        offers=offers,
        now=now,
        **limits,
    )
    note_receiver(runs, worker_id=worker_id, actor=actor)
    return runs


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
    """Returns the runs that `hand_out_runs` would give to the worker, or `only_first` of them, and writes nothing."""
    params: Row = {
        **NO_APPROVALS,
        **limits,
        "worker_id": worker_id,
        "now": now,
        "shut": [],
        "theirs": [],
        "most_bytes": most_bytes,
    }
    statement = _due(1 if only_first else MOST_AT_ONCE, with_pools=has_pools)
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
    shut = shut_triggers(worker_id=params["worker_id"], now=params["now"])
    rows = _within_limits(fetch_all(statement, {**params, "shut": shut}))
    return _opened(_fitting(rows, params["most_bytes"]))


def read_claimed(
    *,
    worker_id: UUID,
    claim_id: str,
    approved: bool,
    takes_approvals: bool = False,
    now: datetime | None = None,
) -> HandedOut | None:
    """Returns the run that the worker holds by this `claim_id`, with its trigger's present URL and headers; writes
    nothing. Returns None if there is none, or if its headers can't be decrypted or must not go to this worker.
    """
    params = {
        "worker_id": worker_id,
        "claim_id": claim_id,
        "approved": approved,
        "takes_approvals": takes_approvals,
        "now": now,
        "most_bytes": MOST_BYTES,
    }
    runs = _opened(fetch_all(_CLAIMED, params))
    return runs[0] if runs else None


def headers_are_readable(trigger: Row) -> bool:
    """`trigger` has the columns that `choose_runs` reads. The plaintext is discarded at once."""
    return opened_headers(trigger) is not None


def shut_triggers(*, worker_id: UUID, now: datetime | None = None) -> list[UUID]:
    """Returns the triggers whose headers can't be decrypted, among those with due runs of the worker."""
    return _unreadable(fetch_all(_SEALED, {"worker_id": worker_id, "now": now}))


def shut_triggers_of_environment(
    *, environment_id: UUID, now: datetime | None = None
) -> list[UUID]:
    params = {"environment_id": environment_id, "now": now}
    return _unreadable(fetch_all(_SEALED_IN_ENVIRONMENT, params))


def _unreadable(sealed: list[Row]) -> list[UUID]:
    return [row["trigger_id"] for row in sealed if opened_headers(row) is None]


class Outlook(NamedTuple):
    """What a worker without a run may expect. `until` is when the next run comes due, a budget's window begins or the
    worker's usage limit ends; None if none of these will happen. `has_room` is whether it may hold another run.
    """

    until: timedelta | None
    has_room: bool


def outlook(*, worker_id: UUID, capacity: int, now: datetime | None = None) -> Outlook:
    row = fetch_row(_OUTLOOK, {"worker_id": worker_id, "capacity": capacity, "now": now})
    return Outlook(row["until"], row["has_room"])


def _within_limits(rows: list[Row]) -> list[Row]:
    """Returns the rows without those that a limit of their trigger would keep the worker from claiming: of each trigger
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
    opened = []
    for row in rows:
        headers = opened_headers(row)
        if headers is not None:
            opened.append(HandedOut(row, headers))
    return opened


def opened_headers(row: Row) -> dict[str, str] | None:
    """Returns the headers of a row with SEALED_HEADERS: the trigger's own, and those of its connection, which replace
    own ones of the same name. Returns None if they can't be decrypted, or the connection has none.
    """
    if row["connection_id"] is not None and row["connection_headers"] is None:
        return None
    own: dict[str, str] = {}
    lent: dict[str, str] = {}
    try:
        if row["mcp_headers"] is not None:
            own = secrets.open_mcp_headers(
                row["environment_id"],
                row["trigger_id"],
                bytes(row["mcp_headers"]),
                WrappedKey.of(row),
            )
        if row["connection_id"] is not None:
            lent = open_headers(
                row["environment_id"],
                row["connection_id"],
                bytes(row["connection_headers"]),
                WrappedKey.of(row, "connection_"),
            )
    except CannotOpen:
        return None
    taken = {name.lower() for name in lent}
    return {name: value for name, value in own.items() if name.lower() not in taken} | lent


def _has_headers(row: Row) -> bool:
    return row["mcp_headers"] is not None or row["connection_id"] is not None


def note_receiver(runs: Iterable[HandedOut], *, worker_id: UUID, actor: Actor) -> None:
    """Stores each run's URL and who got its headers, and audits a new worker or address in the same transaction."""
    receiver = _receiver(worker_id, actor.ip)
    news: dict[UUID, Row] = {}
    for row in (run.row for run in runs):
        gets_headers = _has_headers(row) and row["handed_to"] != receiver
        if gets_headers or row["handed_out_url"] != row["mcp_url"]:
            news[row["id"]] = {**row, "receiver": receiver if gets_headers else None}
    # Runs whose headers nobody has received yet are stored first. Usually all runs are of this kind, and no second
    # statement is needed.
    earlier = _store([row for row in news.values() if row["handed_to"] is None], later=False)
    _log(news, earlier, worker_id, actor)
    if others := [row for run_id, row in news.items() if run_id not in earlier]:
        with transaction.atomic():
            earlier = _store(others, later=True)
            emit(
                *(
                    _to_another(news[run_id], receivers[0], worker_id, actor)
                    for run_id, receivers in earlier.items()
                    if receivers and news[run_id]["receiver"] and receiver not in receivers
                )
            )
        _log(news, earlier, worker_id, actor)


def _store(rows: list[Row], *, later: bool) -> dict[UUID, list[str]]:
    """Returns the runs that this changed, each with the receivers stored before, the latest first."""
    if not rows:
        return {}
    # Rows are locked in the order of their ids, so that two polls at the same moment don't deadlock.
    rows = sorted(rows, key=itemgetter("id"))
    stored = fetch_all(
        _KEEP,
        {
            "run_ids": [row["id"] for row in rows],
            "environment_ids": [row["environment_id"] for row in rows],
            "urls": [row["mcp_url"] for row in rows],
            "receivers": [row["receiver"] for row in rows],
            "later": later,
        },
    )
    return {row["run_id"]: (row["handed_to"] or [])[1:] for row in stored}


def _log(
    news: dict[UUID, Row], earlier: dict[UUID, list[str]], worker_id: UUID, actor: Actor
) -> None:
    for run_id, receivers in earlier.items():
        if news[run_id]["receiver"] is None:
            continue
        previous = {}
        if receivers:
            last_worker, last_address = _parts(receivers[0])
            previous = {"previous_worker_id": last_worker, "previous_address": last_address}
        log.info(
            "run.handed_out",
            run_id=str(run_id),
            worker_id=str(worker_id),
            address=actor.ip,
            **previous,
        )


def _to_another(row: Row, last: str, worker_id: UUID, actor: Actor) -> Event:
    last_worker, last_address = _parts(last)
    metadata = {
        "triggerId": str(row["trigger_id"]),
        "workerId": str(worker_id),
        "previous": {"workerId": last_worker, "address": last_address},
    }
    return Event("run.handed-out", actor, row["environment_id"], "run", row["id"], metadata)


def _receiver(worker_id: UUID, address: str | None) -> str:
    return f"{worker_id} {address or ''}"


def _parts(receiver: str) -> tuple[str, str | None]:
    worker_id, _, address = receiver.partition(" ")
    return worker_id, address or None
