"""Pairing (RFC 8628): a host, or a command line, asks for a code and shows it; a person types it and decides."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, or_not_found
from pipedai.api.throttling import (
    Rate,
    check_rate,
    take_back_hit,
    too_many_requests,
)
from pipedai.client_address import network_of
from pipedai.events import Actor, emit
from pipedai.sql import execute, fetch_row
from workers.enrollment.codes import (
    digest,
    digests,
    make_device_code,
    make_user_code,
    normal_user_code,
)
from workers.enrollment.issuing import event
from workers.models import Enrollment, Worker
from workspaces.locks import hold_role_of_user, lock_environment
from workspaces.roles import Role

LIFETIME = timedelta(minutes=10)
INTERVAL_SECONDS = 5
MAX_PENDING = 10
_PENDING = Rate("pairings", limit=MAX_PENDING, seconds=int(LIFETIME.total_seconds()))
_PAIRINGS = [Enrollment.Kind.DEVICE.value, Enrollment.Kind.KEY.value]
# A user who types five wrong codes in a row must wait for an hour. This keeps users from guessing the codes of hosts.
WRONG_ENTRIES = Rate("pairing-code", limit=5, seconds=3600, in_a_row=True)

# Only MAX_PENDING pairings of one network may wait for approval. This lock makes the requests of one network run one
# after another, so that two requests at once can't exceed that number.
_TAKE_TURNS = "SELECT pg_advisory_xact_lock(hashtextextended('pairing ' || %(network)s, 0))"

_COUNT_PENDING = """
SELECT count(*) AS pending,
    greatest(1, ceil(extract(epoch FROM min(expires_at) - statement_timestamp())))::int AS seconds_left
FROM enrollment
WHERE kind <> 'code' AND approved_at IS NULL AND revoked_at IS NULL AND expires_at > statement_timestamp()
    AND asked_from <<= %(network)s::inet
"""

_DECIDE = """
UPDATE enrollment
SET environment_id = %(environment_id)s, auth_mode = coalesce(%(auth_mode)s, auth_mode), role = %(role)s,
    decided_by_id = %(user_id)s,
    approved_at = CASE WHEN %(approved)s THEN statement_timestamp() END,
    revoked_at = CASE WHEN NOT %(approved)s THEN statement_timestamp() END
WHERE id = %(id)s AND kind = ANY(%(kinds)s) AND approved_at IS NULL AND revoked_at IS NULL
    AND expires_at > statement_timestamp()
"""


@dataclass(frozen=True, slots=True, repr=False)
class Pairing:
    """A new pairing with its two codes in plaintext. The database has only HMACs of them."""

    enrollment_id: UUID
    device_code: str
    user_code: str
    expires_at: datetime


def begin_pairing(
    *,
    label: str | None,
    kind: str = Enrollment.Kind.DEVICE.value,
    address: str | None,
    program: str | None,
) -> Pairing:
    """Begins a pairing of this Enrollment.Kind, which has no environment yet and so no audit entry. Raises
    TooManyRequests if MAX_PENDING of the caller's address (the /64 network for IPv6) wait already.
    """
    device_code, user_code = make_device_code(), make_user_code()
    with transaction.atomic():
        if address is not None:
            _check_pending(address)
        enrollment = Enrollment.objects.create(
            kind=kind,
            label=label,
            auth_mode=Worker.AuthMode.CLAUDE_MAX.value,
            code_digest=digest(kind, device_code),
            user_code_digest=digest("user", user_code),
            last_four=device_code[-4:],
            asked_from=address,
            asked_by=program,
            poll_seconds=INTERVAL_SECONDS,
            expires_at=Now() + LIFETIME,
        )
        enrollment.refresh_from_db(fields=["expires_at"])
    return Pairing(enrollment.id, device_code, user_code, enrollment.expires_at)


def find_pending(*, typed: str, user_id: UUID) -> Enrollment:
    """Returns the waiting pairing with the typed code. Raises NotFound; TooManyRequests after five wrong codes."""
    # The try is counted before the code is looked up: otherwise many requests at once could try more than five codes.
    check_rate(WRONG_ENTRIES, str(user_id))
    code = normal_user_code(typed)
    pending = or_not_found(_pending(user_code_digest__in=digests("user", code)) if code else None)
    take_back_hit(WRONG_ENTRIES, str(user_id))
    return pending


def approve(
    *, typed: str, environment_id: UUID, auth_mode: str, role: Role, user_id: UUID, actor: Actor
) -> Enrollment:
    """Approves the pairing with the typed code: a host's with `auth_mode`, a command line's with `role`. Raises like
    `find_pending`, `approve_pairing` and `approve_login`.
    """
    found = find_pending(typed=typed, user_id=user_id)
    who: Any = {"enrollment_id": found.id, "user_id": user_id, "actor": actor}
    if found.kind == Enrollment.Kind.KEY:
        return approve_login(environment_id=environment_id, role=role, **who)
    return approve_pairing(environment_id=environment_id, auth_mode=auth_mode, **who)


def approve_pairing(
    *, enrollment_id: UUID, environment_id: UUID, auth_mode: str, user_id: UUID, actor: Actor
) -> Enrollment:
    """Approves the pairing. The host gets its tokens when it asks the next time. Raises Conflict if somebody decided
    before or it has expired, and the errors of `hold_role_of_user`.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role_of_user(user_id, environment_id, Role.ADMIN)
        return _decide(
            enrollment_id,
            actor,
            kinds=[Enrollment.Kind.DEVICE.value],
            approved=True,
            environment_id=environment_id,
            auth_mode=auth_mode,
            user_id=user_id,
        )


def approve_login(
    *, enrollment_id: UUID, environment_id: UUID, role: Role, user_id: UUID, actor: Actor
) -> Enrollment:
    """Approves the pairing of a command line, whose key will have this role: the user's own at most. Raises like
    `approve_pairing`.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role_of_user(user_id, environment_id, role)
        return _decide(
            enrollment_id,
            actor,
            kinds=[Enrollment.Kind.KEY.value],
            approved=True,
            environment_id=environment_id,
            role=role.value,
            user_id=user_id,
        )


def deny_pairing(*, enrollment_id: UUID, user_id: UUID, actor: Actor) -> Enrollment:
    """Denies the pairing. Raises Conflict if the pairing was approved or denied before, or has expired."""
    with transaction.atomic():
        return _decide(enrollment_id, actor, kinds=_PAIRINGS, approved=False, user_id=user_id)


def _check_pending(address: str) -> None:
    params = {"network": network_of(address)}
    execute(_TAKE_TURNS, params)
    row = fetch_row(_COUNT_PENDING, params)
    if row["pending"] >= MAX_PENDING:
        sentence = f"{MAX_PENDING} pairings at this address wait for approval, as many as may."
        raise too_many_requests(_PENDING, row["seconds_left"], sentence)


def _decide(enrollment_id: UUID, actor: Actor, **values: object) -> Enrollment:
    unsaid = {"environment_id": None, "auth_mode": None, "role": None}
    if not execute(_DECIDE, {"id": enrollment_id, **unsaid, **values}):
        raise Conflict(
            "Somebody has decided on this request already, or it has expired.",
            code=ErrorCode.ENROLLMENT_EXPIRED,
        )
    enrollment = Enrollment.objects.get(id=enrollment_id)
    action = "enrollment.approved" if values["approved"] else "enrollment.denied"
    metadata = {"askedFrom": enrollment.asked_from}
    if enrollment.role:
        metadata["role"] = enrollment.role
    emit(event(action, enrollment, actor, metadata))
    return enrollment


def _pending(**where: object) -> Enrollment | None:
    return Enrollment.objects.filter(
        kind__in=_PAIRINGS,
        approved_at__isnull=True,
        revoked_at__isnull=True,
        expires_at__gt=Now(),
        **where,
    ).first()
