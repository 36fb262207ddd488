"""Gives the worker that holds a run the headers that the run's trigger has by now (SPEC §24)."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unavailable
from pipedai.events import Actor
from pipedai.sql import fetch_one
from triggers.runs.conditions import CONNECTION_IS_READY, HEADERS_MAY_GO, OF_ENVIRONMENT
from triggers.runs.due_runs import SEALED_HEADERS, WITH_SEALED_HEADERS
from triggers.runs.handout import opened_headers
from triggers.runs.lifecycle import read_own_run
from triggers.runs.receivers import note_receiver
from triggers.runs.refusals import UNAPPROVED, NotReady, Refused
from workspaces.connections.refreshing import distrust_token, want_refresh

# Reads URL and headers together, as a hand-out does, with the URL that the worker was handed before.
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
class Credentials:
    # The URL for which the headers are.
    mcp_url: str
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
) -> Credentials:
    """Returns the headers for the MCP server that the run was handed out with, and stores who receives them.
    `refused_expires_at` is when those expire that the server has refused. Raises NotFound; Refused; NotReady, after it
    has let a scheduler know; and Unavailable if the headers can't be decrypted.
    """
    params = {"run_id": run_id, "worker_id": worker_id, "approved": approved, "now": now}
    row = fetch_one(_HELD, params)
    if row is None:
        run = read_own_run(run_id, worker_id, now)
        raise Refused(f"The run is {run['status']}: the worker does not hold it.", run)
    # Other headers than those of this URL must not go there. There is no URL if the worker claimed without a poll.
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
    return Credentials(row["mcp_url"], headers, row["headers_expire_at"])
