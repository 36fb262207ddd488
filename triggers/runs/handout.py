"""Gives due runs to the workers that ask (SPEC §5, §8, §19, §21). No other module decrypts MCP headers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import NamedTuple, Unpack
from uuid import UUID

from pipedai.api.pagination import MAX_PAGE_BYTES
from pipedai.crypto import CannotOpen
from pipedai.events import Actor
from pipedai.logs import get_logger
from pipedai.sql import Row, fetch_all, fetch_row
from triggers import secrets
from triggers.runs import due_runs
from triggers.runs.conditions import (
    NO_APPROVALS,
    Limits,
)
from triggers.runs.offers import Offers
from triggers.runs.receivers import note_receiver
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
    note_receiver((run.row for run in runs), worker_id=worker_id, actor=actor)
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
    own, of_each_pool = 1 if only_first else MOST_AT_ONCE, MOST_AT_ONCE if has_pools else None
    statement = due_runs.due(own, of_each_pool=of_each_pool)
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
    runs = _opened(fetch_all(due_runs.CLAIMED, params))
    return runs[0] if runs else None


def headers_are_readable(trigger: Row) -> bool:
    """`trigger` has the columns that `choose_runs` reads. The plaintext is discarded at once."""
    return opened_headers(trigger) is not None


def shut_triggers(*, worker_id: UUID, now: datetime | None = None) -> list[UUID]:
    """Returns the triggers whose headers can't be decrypted, among those with due runs of the worker."""
    return _unreadable(fetch_all(due_runs.SEALED, {"worker_id": worker_id, "now": now}))


def shut_triggers_of_environment(
    *, environment_id: UUID, now: datetime | None = None
) -> list[UUID]:
    params = {"environment_id": environment_id, "now": now}
    return _unreadable(fetch_all(due_runs.SEALED_IN_ENVIRONMENT, params))


def _unreadable(sealed: list[Row]) -> list[UUID]:
    return [row["trigger_id"] for row in sealed if opened_headers(row) is None]


class Outlook(NamedTuple):
    """What a worker without a run may expect. `until` is when the next run comes due, a budget's window begins or the
    worker's usage limit ends; None if none of these will happen. `has_room` is whether it may hold another run.
    """

    until: timedelta | None
    has_room: bool


def outlook(*, worker_id: UUID, capacity: int, now: datetime | None = None) -> Outlook:
    row = fetch_row(due_runs.OUTLOOK, {"worker_id": worker_id, "capacity": capacity, "now": now})
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
