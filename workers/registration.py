"""Registers workers: a machine exchanges a `wrk_` token, which works once, for a `wkt_` token (SPEC §5)."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from pipedai.api import tokens
from pipedai.api.errors import NotFound, Unauthenticated
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_one
from pipedai.wakeups import wake_workers
from workers.models import Worker
from workspaces.ceilings import check_ceiling
from workspaces.locks import lock_environment

# A `wrk_` key dies with the account of the user who minted it, or with the key that minted it: once that account is
# deactivated or that key revoked, the `wrk_` key registers no machine any more.
_USABLE = """
k.kind = 'wrk' AND k.consumed_at IS NULL AND k.revoked_at IS NULL AND k.expires_at > statement_timestamp()
AND CASE WHEN k.parent_id IS NULL
    THEN EXISTS (SELECT FROM user_account u WHERE u.id = k.created_by_id AND u.is_active)
    ELSE EXISTS (SELECT FROM api_key p WHERE p.id = k.parent_id AND p.revoked_at IS NULL
        AND (p.expires_at IS NULL OR p.expires_at > statement_timestamp()))
    END
"""

_FIND_KEY = f"""
SELECT k.id, k.environment_id, e.workspace_id, k.parent_id IS NOT NULL AS is_minted,
    m.kind IS DISTINCT FROM 'pwk' AS is_vouched_for, CASE WHEN m.kind = 'hos' THEN m.id END AS host_key_id
FROM api_key k JOIN environment e ON e.id = k.environment_id LEFT JOIN api_key m ON m.id = k.parent_id
WHERE k.token_digest = %(digest)s AND {_USABLE}
"""

_FIND_OLD = """
SELECT id, host(registered_from) AS address FROM worker
WHERE environment_id = %(environment_id)s AND lower(hostname) = lower(%(hostname)s) AND deleted_at IS NULL
FOR NO KEY UPDATE
"""

# A machine with the hostname of a live worker is that worker: it keeps its label, `disabled_at` and its runs.
_UPSERT = """
INSERT INTO worker (
    id, environment_id, label, hostname, os, version, auth_mode, max_concurrency, token_digest, registered_from,
    host_key_id, unapproved_since)
VALUES (
    %(id)s, %(environment_id)s, %(label)s, %(hostname)s, %(os)s, %(version)s, %(auth_mode)s, %(max_concurrency)s,
    %(token_digest)s, %(address)s, %(host_key_id)s, CASE WHEN NOT %(approved)s THEN statement_timestamp() END)
ON CONFLICT (environment_id, lower(hostname)) WHERE deleted_at IS NULL DO UPDATE
SET os = excluded.os, version = excluded.version, auth_mode = excluded.auth_mode,
    max_concurrency = excluded.max_concurrency, token_digest = excluded.token_digest,
    registered_from = excluded.registered_from, host_key_id = excluded.host_key_id,
    unapproved_since = excluded.unapproved_since
WHERE %(may_replace)s
RETURNING id
"""

# The first of `wanted`, `wanted-2`, `wanted-3`… that no worker has: one candidate more than there are workers suffices.
# The database compares them, since PostgreSQL and Python do not always agree on lower case.
_FREE_HOSTNAME = """
WITH live AS (SELECT hostname FROM worker WHERE environment_id = %(environment_id)s AND deleted_at IS NULL),
    suffix AS (
        SELECT n, CASE WHEN n > 1 THEN '-' || n ELSE '' END AS value
        FROM generate_series(1, (SELECT count(*) + 1 FROM live)) n)
SELECT left(%(wanted)s, 255 - length(suffix.value)) || suffix.value AS hostname FROM suffix
WHERE lower(left(%(wanted)s, 255 - length(suffix.value)) || suffix.value) NOT IN (SELECT lower(hostname) FROM live)
ORDER BY suffix.n LIMIT 1
"""

_CONSUME = f"""
UPDATE api_key k SET consumed_at = statement_timestamp(), consumed_by = %(worker_id)s
WHERE k.id = %(key_id)s AND {_USABLE}
"""


@dataclass(frozen=True, slots=True, repr=False)
class Registered:
    """A registered worker and its token, which is stored nowhere."""

    worker_id: UUID
    worker_token: str
    workspace_id: UUID
    environment_id: UUID
    approved: bool
    auth_mode: str


@dataclass(frozen=True, slots=True, repr=False)
class Seated:
    """A worker and its new token. `replaced` is its `id` and `address` before, if the machine was a worker already."""

    worker_id: UUID
    worker_token: str
    hostname: str
    replaced: Row | None


def find_registration_key(token: str) -> Row:
    """Returns the key of a usable `wrk_` token: its `id`, `environment_id`, `workspace_id`, and who minted it.

    `is_vouched_for` is true if a person minted it, or a host that a person let in; it is false if a `pwk_` key did. A
    stranger who finds a `pwk_` key must not get a worker with it to which the service hands secrets.

    Raises Unauthenticated.
    """
    key = fetch_one(_FIND_KEY, {"digest": tokens.digest(token)})
    if key is None:
        raise Unauthenticated(_BAD_TOKEN)
    return key


def register_worker(*, token: str, values: dict[str, Any], actor: Actor) -> Registered:
    """Consumes the `wrk_` token and makes a worker from the validated RegisterBody `values`.

    `actor` carries the address and the request id; this function sets its id to that of the key. Raises
    Unauthenticated for a token that is unknown, used, expired or revoked. If two calls race with one
    token, one of them succeeds.
    """
    key = find_registration_key(token)
    with transaction.atomic():
        try:
            lock_environment(key["environment_id"])
        except NotFound:
            raise Unauthenticated(_BAD_TOKEN) from None
        worker = seat_worker(
            environment_id=key["environment_id"],
            values=values,
            address=actor.ip,
            host_key_id=key["host_key_id"],
            # An admin who mints a token vouches for the machine. A token that a key minted registers new workers only.
            may_replace=not key["is_minted"],
            approved=key["is_vouched_for"],
        )
        if not execute(_CONSUME, {"key_id": key["id"], "worker_id": worker.worker_id}):
            raise Unauthenticated(_BAD_TOKEN)
        metadata: dict[str, Any] = {"hostname": worker.hostname, "version": values["version"]}
        if not key["is_vouched_for"]:
            metadata["approved"] = False
        if worker.replaced is not None:
            metadata |= {"replaced": True, "addresses": [worker.replaced["address"], actor.ip]}
            wake_workers([worker.worker_id])  # ends the poll that waits with the old token
        emit(
            Event(
                "worker.registered",
                replace(actor, id=key["id"]),
                key["environment_id"],
                "worker",
                worker.worker_id,
                metadata,
            )
        )
    return Registered(
        worker.worker_id,
        worker.worker_token,
        key["workspace_id"],
        key["environment_id"],
        key["is_vouched_for"],
        values["auth_mode"],
    )


def seat_worker(
    *,
    environment_id: UUID,
    values: dict[str, Any],
    address: str | None,
    host_key_id: UUID | None,
    may_replace: bool,
    approved: bool,
) -> Seated:
    """Makes a worker with a new token, in an environment whose row the caller has locked. The caller emits the event.

    With `may_replace`, a live worker of the same hostname is that worker and gets the new token. Without it, the new
    worker's hostname gets a suffix, so that no stranger takes over the triggers of another machine. If it is not
    `approved`, it waits for an admin, even if it was approved before. Raises Conflict if the environment has as many
    workers as it may.
    """
    minted = tokens.mint("wkt")
    hostname = values["hostname"]
    if not may_replace:
        free = fetch_one(_FREE_HOSTNAME, {"environment_id": environment_id, "wanted": hostname})
        assert free is not None
        hostname = free["hostname"]
    params = {
        **values,
        "id": new_id(),
        "environment_id": environment_id,
        "hostname": hostname,
        "label": values.get("label") or hostname,
        "token_digest": minted.digest,
        "address": address,
        "host_key_id": host_key_id,
        "may_replace": may_replace,
        "approved": approved,
    }
    old = fetch_one(_FIND_OLD, params)
    if old is None:
        live = Worker.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
        limit = settings.MAX_WORKERS_PER_ENVIRONMENT
        check_ceiling("workers", "workers", held=live.count(), limit=limit)
    worker = fetch_one(_UPSERT, params)
    assert worker is not None
    return Seated(worker["id"], minted.value, hostname, old)


_BAD_TOKEN = "The registration token is invalid, used or expired."  # noqa: S105
