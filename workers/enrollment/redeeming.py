"""Exchanges a code or an approved pairing, once: a host gets a worker and its keys, a command line gets a key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Forbidden, NotFound, Unauthenticated, or_not_found
from pipedai.events import Actor, emit
from pipedai.sql import Row, fetch_one
from workers.enrollment.issuing import digests, event
from workers.models import Enrollment, Worker
from workers.pools.services import join_pools
from workers.registration import seat_worker
from workspaces.api_keys import Minted, create_host_key, create_login_key
from workspaces.locks import hold_role_of_user, lock_environment, pool_metadata
from workspaces.models import Environment
from workspaces.roles import Role

MAX_POLL_SECONDS = 60
# A host may ask this much earlier than its interval allows, because clocks and networks are not exact.
_TOLERANCE_SECONDS = 1

# The worker that a host gets by enrolling takes one run at a time, until an admin or a later registration changes that.
_MAX_CONCURRENCY = 1

_FIND = """
SELECT e.*, environment.workspace_id, e.expires_at <= statement_timestamp() AS is_over
FROM enrollment e LEFT JOIN environment ON environment.id = e.environment_id
WHERE e.kind = %(kind)s AND e.code_digest = ANY(%(digests)s)
"""
# Records that a host asked. After a request that came too soon, it must wait 5 s longer each time (RFC 8628 §3.5).
_POLL = """
UPDATE enrollment e
SET polled_at = statement_timestamp(),
    poll_seconds = CASE WHEN old.too_fast THEN least(e.poll_seconds + 5, %(most)s) ELSE e.poll_seconds END
FROM (
    SELECT id, coalesce(
        polled_at > statement_timestamp() - (poll_seconds - %(tolerance)s) * interval '1 second', false) AS too_fast
    FROM enrollment WHERE id = %(id)s FOR NO KEY UPDATE) old
WHERE e.id = old.id
RETURNING old.too_fast
"""


@dataclass(frozen=True, slots=True, repr=False)
class Redeemed:
    """A host's worker and its two tokens, which are shown only in this answer."""

    worker_id: UUID
    # The tokens are in plaintext; only their digests are stored.
    worker_token: str
    operator_token: str
    api_url: str
    workspace_id: UUID
    environment_id: UUID
    auth_mode: Worker.AuthMode


class EnrollmentRefused(ApiError):  # noqa: N818 - an answer by its status
    """The refusal of a host. With status 400 the pairing still waits, and the host may ask again. Others are final."""

    def __init__(self, status_code: int, code: ErrorCode, message: str) -> None:
        super().__init__(message, code=code)
        self.status_code = status_code


def redeem(
    *, code: str | None, device_code: str | None, values: dict[str, Any], actor: Actor
) -> Redeemed:
    """Makes a host's worker and key, and ends the enrollment. Raises NotFound, EnrollmentRefused, CeilingReached."""
    if code is not None and tokens.prefix_of(code) != "enr":
        # The code's checksum is wrong, so it is no code of ours, and the database need not be asked.
        raise NotFound
    kind = "device" if code is None else "code"
    with _locked(kind, code or device_code or "") as row:
        return _seat(row, values, actor)


def redeem_login(*, device_code: str, actor: Actor) -> tuple[Minted, Environment]:
    """Makes the key of a command line, ends the pairing, and returns key and environment. Raises like `redeem`."""
    with _locked("key", device_code) as row:
        environment = Environment.objects.get(id=row["environment_id"])
        user = replace(actor, type="user", id=row["decided_by_id"])
        minted = create_login_key(
            environment_id=environment.id,
            name=f"Command line {row['label'] or ''}".strip()[:200],
            role=Role(row["role"]),
            user_id=row["decided_by_id"],
            actor=user,
        )
        Enrollment.objects.filter(id=row["id"]).update(consumed_at=Now())
        enrollment = Enrollment.objects.get(id=row["id"])
        emit(event("enrollment.redeemed", enrollment, user, {"keyId": str(minted.key.id)}))
        return minted, environment


@contextmanager
def _locked(kind: str, code: str) -> Iterator[Row]:
    """Yields the approved enrollment with this code. The block runs in a transaction that has locked the enrollment,
    and the role that the approver must still have.
    """
    found = {"kind": kind, "digests": digests(kind, code)}
    row = _find(found)
    _check(row)
    if row["approved_at"] is None:
        raise _waiting(row["id"])
    with transaction.atomic():
        try:
            lock_environment(row["environment_id"])
        except NotFound:
            raise EnrollmentRefused(403, ErrorCode.ENROLLMENT_DENIED, _REVOKED) from None
        # The enrollment is read again under the lock, as another call may have redeemed or revoked it meanwhile.
        row = _find(found, " FOR NO KEY UPDATE OF e")
        _check(row)
        needs = Role(row["role"]) if row["role"] else Role.ADMIN
        try:
            hold_role_of_user(row["decided_by_id"], row["environment_id"], needs)
        except (Forbidden, NotFound, Unauthenticated):
            raise EnrollmentRefused(403, ErrorCode.ENROLLMENT_DENIED, _REVOKED) from None
        yield row


_REVOKED = "The enrollment was denied or revoked."


def _find(params: dict[str, Any], lock: str = "") -> Row:
    return or_not_found(fetch_one(_FIND + lock, params))


def _check(row: Row) -> None:
    if row["consumed_at"] is not None:
        raise EnrollmentRefused(
            409, ErrorCode.ENROLLMENT_REDEEMED, "The enrollment has been redeemed already."
        )
    if row["revoked_at"] is not None:
        raise EnrollmentRefused(403, ErrorCode.ENROLLMENT_DENIED, _REVOKED)
    if row["is_over"]:
        raise EnrollmentRefused(410, ErrorCode.ENROLLMENT_EXPIRED, "The enrollment has expired.")


def _waiting(enrollment_id: UUID) -> EnrollmentRefused:
    params = {"most": MAX_POLL_SECONDS, "tolerance": _TOLERANCE_SECONDS}
    row = fetch_one(_POLL, {**params, "id": enrollment_id})
    too_fast = row is not None and row["too_fast"]
    code = ErrorCode.SLOW_DOWN if too_fast else ErrorCode.AUTHORIZATION_PENDING
    # RFC 8628 expects these words in `error`, and our API has them in `code`, so both keys have them.
    return EnrollmentRefused(400, code, code.value)


def _seat(row: Row, values: dict[str, Any], actor: Actor) -> Redeemed:
    environment_id = row["environment_id"]
    label = row["label"] or values.get("label")
    host = create_host_key(
        environment_id=environment_id,
        name=f"Host {label or values['hostname']}"[:200],
        created_by=row["decided_by_id"],
    )
    worker = seat_worker(
        environment_id=environment_id,
        values={
            **values,
            "label": label,
            "auth_mode": row["auth_mode"],
            "max_concurrency": _MAX_CONCURRENCY,
        },
        address=actor.ip,
        host_key_id=host.key.id,
        may_replace=False,
        # The worker needs no further approval: only a person can issue a code or approve a pairing, and no API key can.
        approved=True,
    )
    # Some of the pools may have been deleted since the code was issued.
    joined = join_pools(
        environment_id=environment_id, worker_id=worker.worker_id, pool_ids=row["pool_ids"] or ()
    )
    Enrollment.objects.filter(id=row["id"]).update(consumed_at=Now(), worker_id=worker.worker_id)
    metadata = {
        "hostname": worker.hostname,
        "version": values["version"],
        "workerId": str(worker.worker_id),
        "keyId": str(host.key.id),
        **pool_metadata(joined),
    }
    enrollment = Enrollment.objects.get(id=row["id"])
    emit(event("enrollment.redeemed", enrollment, replace(actor, id=host.key.id), metadata))
    return Redeemed(
        worker.worker_id,
        worker.worker_token,
        host.token,
        settings.PUBLIC_URL,
        row["workspace_id"],
        environment_id,
        row["auth_mode"],
    )
