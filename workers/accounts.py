"""Keeps which account pays for the model of a worker, and lets a worker share the usage limit of its account."""

import re
from uuid import UUID

from django.db import transaction

from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import execute, fetch_one
from triggers.runs.routing import open_to_pools

# A worker that moves from one account to another leaves the limit of the old one behind. One that names its account for
# the first time keeps its own limit.
_SET = """
UPDATE worker w
SET account_id = %(account_id)s, limited_until = CASE
    WHEN w.account_id <> %(account_id)s THEN mates.limited_until
    ELSE greatest(w.limited_until, mates.limited_until) END
FROM (
    SELECT max(limited_until) AS limited_until FROM worker
    WHERE environment_id = %(environment_id)s AND account_id = %(account_id)s AND deleted_at IS NULL
        AND id <> %(worker_id)s AND limited_until > statement_timestamp()) mates
WHERE w.id = %(worker_id)s
RETURNING CASE WHEN w.limited_until > statement_timestamp() THEN w.limited_until END AS limited_until
"""

_LOCK = "SELECT FROM worker WHERE id = %(worker_id)s AND token_digest = %(token_digest)s FOR NO KEY UPDATE"
_SANE = re.compile(r"[!-~]{1,64}", re.ASCII)


def note_account(worker: WorkerPrincipal, *, header: str | None) -> None:
    """Stores the account in a poll's `header`, if it is a new one. A worker can name it only when it knows its
    environment, and somebody may log in to another account, so each poll has it.
    """
    if header is None or header == worker.account_id or not _SANE.fullmatch(header):
        return
    with transaction.atomic():
        execute(_LOCK, {"worker_id": worker.id, "token_digest": worker.token_digest})
        set_account(environment_id=worker.environment_id, worker_id=worker.id, account_id=header)


def set_account(*, environment_id: UUID, worker_id: UUID, account_id: str | None) -> None:
    """Stores a worker's account, and limits the worker while others of the account are limited. Others of its pools may
    then take its runs at once, except those that continue a session. The caller has locked the worker.
    """
    params = {
        "environment_id": environment_id,
        "worker_id": worker_id,
        "account_id": account_id,
    }
    row = fetch_one(_SET, params)
    if row is not None and row["limited_until"] is not None:
        open_to_pools([worker_id], until=row["limited_until"])
