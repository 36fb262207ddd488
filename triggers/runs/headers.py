"""Opens the secret headers of runs for their workers, and notes who received them. No other module does so.

A worker gets the headers with a run, and asks for present ones while it holds the run.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from uuid import UUID

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unavailable
from pipedai.crypto import CannotOpen
from pipedai.events import Actor, Event, emit
from pipedai.logs import get_logger
from pipedai.sql import Row, fetch_all, fetch_one
from triggers.models.trigger import MCP_HEADERS
from triggers.runs.conditions import CONNECTION_IS_READY, HEADERS_MAY_GO, OF_ENVIRONMENT
from triggers.runs.lifecycle import UNAPPROVED, NotReady, Refused, read_own_run
from workspaces.connections.models import HEADERS
from workspaces.connections.refreshing import distrust_token, want_refresh
from workspaces.encryption.keys import unseal_row

log = get_logger(__name__)

# The columns that `opened_headers` reads of a trigger `t`, and the joins for them: the trigger's own sealed headers and
# those of its connection, each with its data key.
SEALED_HEADERS = """t.mcp_headers, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id,
    t.connection_id, c.headers AS connection_headers, c.access_expires_at AS headers_expire_at,
    ck.id AS connection_key_id, ck.wrapped AS connection_key_wrapped, ck.master_key_id AS connection_master_key_id"""

WITH_SEALED_HEADERS = """LEFT JOIN data_key k ON k.id = t.mcp_key_id
LEFT JOIN connection c ON c.id = t.connection_id
LEFT JOIN data_key ck ON ck.id = c.headers_key_id"""


def opened_headers(row: Row) -> dict[str, str] | None:
    """Returns the headers of a row with SEALED_HEADERS: the trigger's own and those of its connection. Of two with the
    same name, the connection's counts. Returns None if they can't be decrypted, or the connection has none.
    """
    if row["connection_id"] is not None and row["connection_headers"] is None:
        return None
    own: dict[str, str] = {}
    lent: dict[str, str] = {}
    try:
        if row["mcp_headers"] is not None:
            own = json.loads(unseal_row(MCP_HEADERS, row, row["trigger_id"]))
        if row["connection_id"] is not None:
            lent = json.loads(unseal_row(HEADERS, row, row["connection_id"], "connection_"))
    except CannotOpen:
        return None
    taken = {name.lower() for name in lent}
    return {name: value for name, value in own.items() if name.lower() not in taken} | lent


# Reads URL and headers together, as a hand-out does, with the URL that the worker got before.
_HELD = f"""
SELECT r.id, r.environment_id, r.trigger_id, r.status, t.mcp_url, {SEALED_HEADERS},
    x.mcp_url AS handed_out_url, x.handed_to[1] AS handed_to, t.deleted_at IS NOT NULL AS is_deleted,
    {HEADERS_MAY_GO} AS headers_may_go, {CONNECTION_IS_READY} AS is_ready
FROM run r
JOIN trigger t ON t.id = r.trigger_id
{WITH_SEALED_HEADERS}
LEFT JOIN run_text x ON x.run_id = r.id
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL AND r.{OF_ENVIRONMENT}
"""


@dataclass(frozen=True, slots=True, repr=False)
class RunCredentials:
    """The MCP headers that a run's trigger has now."""

    # The URL to which the headers may go.
    mcp_url: str | None
    headers: dict[str, str]
    # When they expire; None if they do not.
    expires_at: datetime | None


def renew_credentials(
    *,
    worker_id: UUID,
    run_id: UUID,
    approved: bool,
    actor: Actor,
    refused_expires_at: datetime | None = None,
    now: datetime | None = None,
) -> RunCredentials:
    """Returns the headers for the MCP server that the run was handed out with, and stores who receives them.
    `refused_expires_at` is the expiry of the headers that the server has refused. Raises NotFound; Refused; NotReady,
    after it has asked a scheduler for a token; and Unavailable if the headers can't be decrypted.
    """
    params = {"run_id": run_id, "worker_id": worker_id, "approved": approved, "now": now}
    row = fetch_one(_HELD, params)
    if row is None:
        run = read_own_run(run_id, worker_id, now)
        raise Refused(f"The run is {run['status']}: the worker does not hold it.", run)
    # The headers may only go to their own URL, which may have changed. A claim without a poll handed out no URL.
    if row["is_deleted"] or row["handed_out_url"] not in (None, row["mcp_url"]):
        raise Refused(
            "The run's trigger has another MCP URL by now, or was deleted.",
            row,
            code=ErrorCode.TRIGGER_CHANGED,
        )
    if not row["headers_may_go"]:
        raise Refused(UNAPPROVED, row, code=ErrorCode.WORKER_UNAPPROVED)
    is_refused = (
        refused_expires_at is not None
        and row["connection_id"] is not None
        and distrust_token(row["connection_id"], refused_expires_at)
    )
    if is_refused or not row["is_ready"]:
        want_refresh([row["connection_id"]])
        raise NotReady(row, row["connection_id"])
    headers = opened_headers(row)
    if headers is None:
        raise Unavailable(
            "The headers of the run's trigger can't be decrypted: an operator has to mend that.",
            code=ErrorCode.ENCRYPTION_UNAVAILABLE,
            retry_after=60,
        )
    note_receiver([row], worker_id=worker_id, actor=actor)
    return RunCredentials(row["mcp_url"], headers, row["headers_expire_at"])


# How many receivers of a run's secret headers are stored with the run. A receiver is a worker together with its IP
# address. So a worker that changes between a few addresses causes one audit row for each address, not one at every
# poll.
_REMEMBERED = 20

# Stores with each run the MCP URL that the worker gets, the run whose output it gets, and who receives the secret
# headers: the receiver, which is a worker together with its IP address. `receiver` is NULL if the run has no headers,
# or if the receiver stored last gets them again. With `later` false, the statement changes only rows without a
# receiver. If two polls do this at the same moment, the second one changes and returns no row, and so learns that it
# was second. With `later` true, the statement puts the receiver before the earlier ones, unless the receiver stored
# last and the stored URL are the same as the new ones.
_KEEP = f"""
INSERT INTO run_text AS kept (run_id, environment_id, mcp_url, handed_to, previous_id)
SELECT run_id, environment_id, url, CASE WHEN receiver IS NOT NULL THEN ARRAY[receiver] END, previous_id
FROM unnest(%(run_ids)s::uuid[], %(environment_ids)s::uuid[], %(urls)s::text[], %(receivers)s::text[],
    %(previous_ids)s::uuid[]) AS u (run_id, environment_id, url, receiver, previous_id)
ON CONFLICT (run_id) DO UPDATE
SET mcp_url = excluded.mcp_url, previous_id = coalesce(kept.previous_id, excluded.previous_id),
    handed_to = (excluded.handed_to || kept.handed_to)[1:{_REMEMBERED}]
WHERE CASE WHEN %(later)s
    THEN kept.mcp_url IS DISTINCT FROM excluded.mcp_url OR kept.handed_to[1] IS DISTINCT FROM excluded.handed_to[1]
    ELSE kept.handed_to IS NULL END
RETURNING run_id, handed_to
"""


def note_receiver(runs: Iterable[Row], *, worker_id: UUID, actor: Actor) -> None:
    """Stores the URL of each run that was handed out and who got its headers. In the same transaction it writes an
    audit row for a new worker or address.
    """
    receiver = f"{worker_id} {actor.ip or ''}"
    news: dict[UUID, Row] = {}
    for row in runs:
        has_headers = row["mcp_headers"] is not None or row["connection_id"] is not None
        gets_headers = has_headers and row["handed_to"] != receiver
        is_fixed = row.get("previous_id") == row.get("kept_previous_id")
        if gets_headers or row["handed_out_url"] != row["mcp_url"] or not is_fixed:
            news[row["id"]] = {**row, "receiver": receiver if gets_headers else None}
    # Runs whose headers nobody has received yet come first. Usually all runs are of this kind, and no second statement
    # is needed.
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
    """Stores the receivers, and returns the changed runs with the receivers stored before, the latest first."""
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
            "previous_ids": [row.get("previous_id") for row in rows],
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


def _parts(receiver: str) -> tuple[str, str | None]:
    worker_id, _, address = receiver.partition(" ")
    return worker_id, address or None
