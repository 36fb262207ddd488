"""Registers a worker: a `wrk_` key, once, for a `wkt_` token (SPEC §5)."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from pipedai.api import tokens
from pipedai.api.errors import Conflict, NotFound, Unauthenticated
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_one
from pipedai.wakeups import wake_workers
from workers.models import Worker
from workspaces.locks import lock_environment

# A key dies with its minter's account: whoever is deactivated brings no machine in any more.
_USABLE = """
kind = 'wrk' AND consumed_at IS NULL AND revoked_at IS NULL AND expires_at > statement_timestamp()
AND EXISTS (SELECT FROM user_account u WHERE u.id = created_by_id AND u.is_active)
"""

_FIND_KEY = f"""
SELECT k.id, k.environment_id, e.workspace_id
FROM api_key k JOIN environment e ON e.id = k.environment_id
WHERE k.token_digest = %(digest)s AND {_USABLE}
"""

_FIND_OLD = """
SELECT id, host(registered_from) AS address FROM worker
WHERE environment_id = %(environment_id)s AND lower(hostname) = lower(%(hostname)s) AND deleted_at IS NULL
FOR NO KEY UPDATE
"""

# The same hostname is the same worker: it keeps its label, `disabled` and the runs it holds.
_UPSERT = """
INSERT INTO worker (
    id, environment_id, label, hostname, os, version, auth_mode, max_concurrency, token_digest, registered_from)
VALUES (
    %(id)s, %(environment_id)s, %(label)s, %(hostname)s, %(os)s, %(version)s, %(auth_mode)s, %(max_concurrency)s,
    %(token_digest)s, %(address)s)
ON CONFLICT (environment_id, lower(hostname)) WHERE deleted_at IS NULL DO UPDATE
SET os = excluded.os, version = excluded.version, auth_mode = excluded.auth_mode,
    max_concurrency = excluded.max_concurrency, token_digest = excluded.token_digest,
    registered_from = excluded.registered_from
RETURNING id
"""

_CONSUME = f"""
UPDATE api_key SET consumed_at = statement_timestamp(), consumed_by = %(worker_id)s
WHERE id = %(key_id)s AND {_USABLE}
"""


@dataclass(frozen=True, slots=True, repr=False)
class Registered:
    """A registered worker and its token, which is stored nowhere."""

    worker_id: UUID
    worker_token: str
    workspace_id: UUID
    environment_id: UUID


def find_registration_key(token: str) -> Row:
    """The key of a usable `wrk_` token: its `id`, `environment_id` and `workspace_id`. Raises Unauthenticated."""
    key = fetch_one(_FIND_KEY, {"digest": tokens.digest(token)})
    if key is None:
        raise Unauthenticated(_BAD_TOKEN)
    return key


def register_worker(*, token: str, values: dict[str, Any], actor: Actor) -> Registered:
    """Consumes the `wrk_` token for a worker of the validated RegisterBody `values`.

    `actor` carries the address and the request id; its id, the key's, is filled in here. Raises
    Unauthenticated for a token that is unknown, used, expired or revoked; of two that race with one
    token, one gets it.
    """
    key = find_registration_key(token)
    minted = tokens.mint("wkt")
    params = {
        **values,
        "id": new_id(),
        "environment_id": key["environment_id"],
        "label": values.get("label") or values["hostname"],
        "token_digest": minted.digest,
        "address": actor.ip,
    }
    with transaction.atomic():
        try:
            lock_environment(key["environment_id"])
        except NotFound:
            raise Unauthenticated(_BAD_TOKEN) from None
        old = fetch_one(_FIND_OLD, params)
        if old is None:
            _check_room(key["environment_id"])
        worker = fetch_one(_UPSERT, params)
        assert worker is not None
        if not execute(_CONSUME, {"key_id": key["id"], "worker_id": worker["id"]}):
            raise Unauthenticated(_BAD_TOKEN)
        metadata: dict[str, Any] = {"hostname": values["hostname"], "version": values["version"]}
        if old is not None:
            metadata |= {"replaced": True, "addresses": [old["address"], actor.ip]}
            wake_workers([worker["id"]])  # the old token's waiting poll is to end
        emit(
            Event(
                "worker.registered",
                replace(actor, id=key["id"]),
                key["environment_id"],
                "worker",
                worker["id"],
                metadata,
            )
        )
    return Registered(worker["id"], minted.value, key["workspace_id"], key["environment_id"])


_BAD_TOKEN = "The registration token is invalid, used or expired."  # noqa: S105


def _check_room(environment_id: UUID) -> None:
    limit = settings.MAX_WORKERS_PER_ENVIRONMENT
    if (
        Worker.objects.filter(environment_id=environment_id, deleted_at__isnull=True).count()
        >= limit
    ):
        raise Conflict(f"The environment has {limit} workers, as many as it may.")
