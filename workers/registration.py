"""Registers workers: a machine exchanges a `wrk_` token, which works once, for its own `wkt_` token."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db import transaction

from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import NotFound, Unauthenticated
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_one, fetch_row
from pipedai.wakeups import wake_workers
from workers.models import Worker
from workers.pools.services import join_pools, pools_of_host
from workers.presence import set_account
from workspaces.ceilings import check_ceiling
from workspaces.locks import lock_environment, pool_metadata

# The SQL condition for a `wrk_` key that is neither used nor revoked. A key counts as revoked when the account of the
# user who minted it is deactivated, or when the API key that minted it is revoked or expires.
_UNUSED = """
k.kind = 'wrk' AND k.consumed_at IS NULL AND k.revoked_at IS NULL
AND CASE WHEN k.parent_id IS NULL
    THEN EXISTS (SELECT FROM user_account u WHERE u.id = k.created_by_id AND u.is_active)
    ELSE EXISTS (SELECT FROM api_key p WHERE p.id = k.parent_id AND p.revoked_at IS NULL
        AND (p.expires_at IS NULL OR p.expires_at > statement_timestamp()))
    END
"""

_FIND_KEY = f"""
SELECT k.id, k.environment_id, e.workspace_id, k.expires_at <= statement_timestamp() AS is_over,
    k.parent_id IS NOT NULL AS is_minted, k.pool_ids,
    m.kind IS DISTINCT FROM 'pwk' AS is_vouched_for, CASE WHEN m.kind = 'hos' THEN m.id END AS host_key_id
FROM api_key k JOIN environment e ON e.id = k.environment_id LEFT JOIN api_key m ON m.id = k.parent_id
WHERE k.token_digest = %(digest)s AND {_UNUSED}
"""

_FIND_OLD = """
SELECT id, host(registered_from) AS address FROM worker
WHERE environment_id = %(environment_id)s AND lower(hostname) = lower(%(hostname)s) AND deleted_at IS NULL
FOR NO KEY UPDATE
"""

# If a worker with this hostname is registered in the environment, its row is updated: the worker keeps its label, its
# `disabled_at` and its runs.
_UPSERT = """
INSERT INTO worker (
    id, environment_id, label, hostname, os, version, auth_mode, max_concurrency, token_digest, registered_from,
    host_key_id, unapproved_since, problems, problems_since)
VALUES (
    %(id)s, %(environment_id)s, %(label)s, %(hostname)s, %(os)s, %(version)s, %(auth_mode)s, %(max_concurrency)s,
    %(token_digest)s, %(address)s, %(host_key_id)s, CASE WHEN NOT %(approved)s THEN statement_timestamp() END,
    coalesce(%(problems)s::jsonb, '[]'), CASE WHEN %(problems)s::jsonb <> '[]' THEN statement_timestamp() END)
ON CONFLICT (environment_id, lower(hostname)) WHERE deleted_at IS NULL DO UPDATE
SET os = excluded.os, version = excluded.version, auth_mode = excluded.auth_mode,
    max_concurrency = excluded.max_concurrency, token_digest = excluded.token_digest,
    registered_from = excluded.registered_from, host_key_id = excluded.host_key_id,
    unapproved_since = excluded.unapproved_since,
    problems = CASE WHEN %(problems)s::jsonb IS NULL THEN worker.problems ELSE excluded.problems END,
    problems_since = CASE WHEN %(problems)s::jsonb IS NULL THEN worker.problems_since ELSE excluded.problems_since END
WHERE %(may_replace)s
RETURNING id
"""

# Finds the first of `wanted`, `wanted-2`, `wanted-3`… that no worker of the environment has as its hostname. It tries
# one name more than there are workers, so one must be free. The database compares the names, because PostgreSQL and
# Python sometimes disagree on the lower case of a letter.
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
WHERE k.id = %(key_id)s AND k.expires_at > statement_timestamp() AND {_UNUSED}
"""


@dataclass(frozen=True, slots=True, repr=False)
class Registered:
    """A registered worker and its token, which is shown only in this answer."""

    worker_id: UUID
    # The token in plaintext; the database has only its digest.
    worker_token: str
    workspace_id: UUID
    environment_id: UUID
    approved: bool
    auth_mode: Worker.AuthMode


@dataclass(frozen=True, slots=True, repr=False)
class Seated:
    """The worker of a machine. `replaced` has the `id` and `address` of its previous worker, or is None."""

    worker_id: UUID
    worker_token: str
    hostname: str
    replaced: Row | None


def find_registration_key(token: str) -> Row:
    """Returns the `wrk_` key with this token: its `id`, `environment_id`, `workspace_id`, and who minted it.
    `is_vouched_for` is false if a `pwk_` key minted it, because somebody who finds such a key must not get secrets.
    Raises Unauthenticated.
    """
    key = fetch_one(_FIND_KEY, {"digest": tokens.digest(token)})
    if key is None:
        raise _bad_token()
    if key["is_over"]:
        raise _bad_token(ErrorCode.TOKEN_EXPIRED)
    return key


def register_worker(*, token: str, values: dict[str, Any], actor: Actor) -> Registered:
    """Uses the `wrk_` token up, and makes a worker from the body's values. The actor of the event is the key. Raises
    Unauthenticated, for the second of two calls at once too.
    """
    key = find_registration_key(token)
    with transaction.atomic():
        try:
            lock_environment(key["environment_id"])
        except NotFound:
            raise _bad_token() from None
        worker = seat_worker(
            environment_id=key["environment_id"],
            values=values,
            address=actor.ip,
            host_key_id=key["host_key_id"],
            # A token minted by a person may replace a worker of the same hostname, because that person vouches for the
            # machine. A token minted by an API key can only register new workers.
            may_replace=not key["is_minted"],
            approved=key["is_vouched_for"],
        )
        if not execute(_CONSUME, {"key_id": key["id"], "worker_id": worker.worker_id}):
            raise _bad_token()
        pool_ids = set(key["pool_ids"] or ())
        if pool_ids and key["host_key_id"] is not None:
            # The host's workers may have left some of the pools since it minted the token.
            pool_ids &= pools_of_host(key["host_key_id"])
        joined = join_pools(
            environment_id=key["environment_id"], worker_id=worker.worker_id, pool_ids=pool_ids
        )
        metadata: dict[str, Any] = {
            "hostname": worker.hostname,
            "version": values["version"],
            **pool_metadata(joined),
        }
        if not key["is_vouched_for"]:
            metadata["approved"] = False
        if worker.replaced is not None:
            metadata |= {"replaced": True, "addresses": [worker.replaced["address"], actor.ip]}
            # The poll that waits with the old token wakes up and ends.
            wake_workers([worker.worker_id])
        caller, environment_id = replace(actor, id=key["id"]), key["environment_id"]
        emit(
            Event("worker.registered", caller, environment_id, "worker", worker.worker_id, metadata)
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
    """Makes a worker with a new token. The caller has locked the environment, and emits the event. With `may_replace` a
    registered worker of the hostname is updated, and keeps its account if `values` name none. Otherwise a suffix makes
    the hostname unique, so that a stranger's machine can't take over its triggers. Unless `approved`, an admin must
    approve the worker, even if one did before. Raises CeilingReached.
    """
    minted = tokens.mint("wkt")
    hostname = values["hostname"]
    if not may_replace:
        free = fetch_row(_FREE_HOSTNAME, {"environment_id": environment_id, "wanted": hostname})
        hostname = free["hostname"]
    params = {
        **values,
        "id": new_id(),
        "environment_id": environment_id,
        "hostname": hostname,
        "label": values.get("label") or hostname,
        "problems": values.get("problems"),
        "token_digest": minted.digest,
        "address": address,
        "host_key_id": host_key_id,
        "may_replace": may_replace,
        "approved": approved,
    }
    old = fetch_one(_FIND_OLD, params)
    if old is None:
        live = Worker.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
        check_ceiling("workers", "machines", environment_id=environment_id, rows=live)
    worker = fetch_row(_UPSERT, params)
    if (account_id := values.get("account_id")) is not None:
        set_account(environment_id=environment_id, worker_id=worker["id"], account_id=account_id)
    return Seated(worker["id"], minted.value, hostname, old)


def _bad_token(code: ErrorCode = ErrorCode.INVALID_TOKEN) -> Unauthenticated:
    return Unauthenticated("The registration token is invalid, used or expired.", code=code)
