"""Issues codes for hosts, and lets hosts and command lines ask for a pairing, which a person approves or denies."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, or_not_found
from pipedai.api.throttling import Rate, check_rate, take_back_hit, too_many_requests
from pipedai.events import Actor, Event, emit
from pipedai.server.request_scope import network_of
from pipedai.sql import execute, fetch_row
from workers.models import Enrollment, Worker
from workspaces.ceilings import check_ceiling
from workspaces.locks import (
    changing,
    checked_pools,
    hold_role_of_user,
    lock_environment,
    pool_metadata,
)
from workspaces.roles import Role
from workspaces.serializers import WRK_LIFETIME

LIFETIME = timedelta(minutes=10)
INTERVAL_SECONDS = 5
MAX_PENDING = 10
_PENDING = Rate("pairings", limit=MAX_PENDING, seconds=int(LIFETIME.total_seconds()))
_PAIRINGS = [Enrollment.Kind.DEVICE.value, Enrollment.Kind.KEY.value]
# A user who types five wrong codes in a row must wait for an hour. This keeps users from guessing the codes of hosts.
WRONG_ENTRIES = Rate("pairing-code", limit=5, seconds=3600, in_a_row=True)

# The letters of the code that a person types (RFC 8628 §6.1). Without vowels a code spells no word, and no two letters
# look alike. A code of 8 letters has 20^8 values, or 34.6 bits.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
_DEVICE_BYTES = 32

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


def issue_code(
    *,
    environment_id: UUID,
    label: str | None,
    auth_mode: str,
    expires_at: datetime | None,
    pool_ids: list[UUID] | None = None,
    user_id: UUID,
    actor: Actor,
) -> tuple[Enrollment, str]:
    """Makes an enrollment and returns it with its `enr_` code. The database keeps only an HMAC of the code. The
    enrollment expires after a day unless `expires_at` says otherwise. Raises NotFound, Invalid for a missing pool,
    CeilingReached, and the errors of `hold_role_of_user`.
    """
    code = tokens.mint("enr")
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role_of_user(user_id, environment_id, Role.ADMIN)
        usable = Enrollment.objects.filter(
            Q(expires_at__gt=Now()),
            environment_id=environment_id,
            revoked_at__isnull=True,
            consumed_at__isnull=True,
        )
        check_ceiling(
            "enrollments", "usable enrollments", environment_id=environment_id, rows=usable
        )
        enrollment = Enrollment.objects.create(
            environment_id=environment_id,
            kind=Enrollment.Kind.CODE.value,
            label=label,
            auth_mode=auth_mode,
            code_digest=digest("code", code.value),
            last_four=code.last_four,
            decided_by_id=user_id,
            approved_at=Now(),
            expires_at=Now() + WRK_LIFETIME if expires_at is None else expires_at,
            pool_ids=checked_pools(environment_id, pool_ids),
        )
        enrollment.refresh_from_db(fields=["expires_at", "approved_at"])
        metadata = {"lastFour": code.last_four, **pool_metadata(enrollment.pool_ids)}
        emit(event("enrollment.created", enrollment, actor, metadata))
    return enrollment, code.value


def revoke_enrollment(*, environment_id: UUID, enrollment_id: UUID, actor: Actor) -> None:
    """Revokes the enrollment, once. Raises NotFound, and Conflict if it was redeemed: then revoke the host's key."""
    own = Enrollment.objects.filter(id=enrollment_id, environment_id=environment_id)
    with changing(environment_id, actor):
        if own.filter(revoked_at__isnull=True, consumed_at__isnull=True).update(revoked_at=Now()):
            emit(event("enrollment.revoked", own.get(), actor, {}))
            return
        enrollment = or_not_found(own.first())
        if enrollment.consumed_at is not None:
            raise Conflict(
                "The enrollment has been redeemed: revoke the host's key (hos_) instead.",
                code=ErrorCode.ENROLLMENT_REDEEMED,
            )


@dataclass(frozen=True, slots=True, repr=False)
class Pairing:
    """A pairing that waits for a person's approval."""

    id: UUID
    # The two codes are in plaintext. The database has only HMACs of them.
    device_code: str
    user_code: str
    verification_uri: str
    # RFC 8628 asks for a URL that contains the code. The code is in the fragment, which browsers send to no server, and
    # which our page does not read: a person must type the code, so that nobody can be tricked by a link.
    verification_uri_complete: str
    interval: int
    expires_at: datetime


def begin_pairing(
    *,
    label: str | None,
    kind: str = Enrollment.Kind.DEVICE.value,
    address: str | None,
    program: str | None,
) -> Pairing:
    """Begins a pairing, which has no environment yet. Raises TooManyRequests if its network has MAX_PENDING already."""
    device_code, user_code = make_device_code(), make_user_code()
    with transaction.atomic():
        if address is not None:
            params = {"network": network_of(address)}
            execute(_TAKE_TURNS, params)
            row = fetch_row(_COUNT_PENDING, params)
            if row["pending"] >= MAX_PENDING:
                sentence = f"{MAX_PENDING} pairings from this IP address wait for approval, as many as may."
                raise too_many_requests(_PENDING, row["seconds_left"], sentence)
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
    uri = f"{settings.PUBLIC_URL}/pair"
    return Pairing(
        enrollment.id,
        device_code,
        user_code,
        uri,
        f"{uri}#{user_code}",
        INTERVAL_SECONDS,
        enrollment.expires_at,
    )


def find_pending(*, typed: str, user_id: UUID) -> Enrollment:
    """Returns the waiting pairing with the typed code. Raises NotFound; TooManyRequests after five wrong codes."""
    # The try is counted before the code is looked up, because many requests at once could else try more than five.
    check_rate(WRONG_ENTRIES, str(user_id))
    code = normal_user_code(typed)
    pending = Enrollment.objects.filter(
        kind__in=_PAIRINGS,
        approved_at__isnull=True,
        revoked_at__isnull=True,
        expires_at__gt=Now(),
        user_code_digest__in=digests("user", code or ""),
    )
    found = or_not_found(pending.first() if code else None)
    take_back_hit(WRONG_ENTRIES, str(user_id))
    return found


def approve_pairing(
    *,
    enrollment_id: UUID,
    environment_id: UUID,
    auth_mode: str | None = None,
    role: Role | None = None,
    user_id: UUID,
    actor: Actor,
) -> Enrollment:
    """Approves a pairing. With `role`, the pairing is a command line's, whose key gets this role, the user's own at
    most; without, it is a host's. The program gets its tokens at its next request. Raises Conflict if the pairing has
    expired or somebody has decided already, and the errors of `hold_role_of_user`.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role_of_user(user_id, environment_id, role or Role.ADMIN)
        return _decide(
            enrollment_id,
            actor,
            kinds=[(Enrollment.Kind.KEY if role else Enrollment.Kind.DEVICE).value],
            approved=True,
            environment_id=environment_id,
            auth_mode=auth_mode,
            role=role and role.value,
            user_id=user_id,
        )


def deny_pairing(*, enrollment_id: UUID, user_id: UUID, actor: Actor) -> Enrollment:
    """Denies the pairing. Raises Conflict if the pairing was approved or denied before, or has expired."""
    with transaction.atomic():
        return _decide(enrollment_id, actor, kinds=_PAIRINGS, approved=False, user_id=user_id)


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


def event(action: str, enrollment: Enrollment, actor: Actor, metadata: dict[str, Any]) -> Event:
    metadata = {"kind": enrollment.kind, "label": enrollment.label, **metadata}
    return Event(action, actor, enrollment.environment_id, "enrollment", enrollment.id, metadata)


def make_user_code() -> str:
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF))
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def normal_user_code(typed: str) -> str | None:
    """Returns a typed code, in any case and punctuation, in the form of `make_user_code`; None for other texts."""
    letters = [character for character in typed.upper() if character.isalnum()]
    if len(letters) != 2 * _HALF or not set(letters) <= set(_LETTERS):
        return None
    return f"{''.join(letters[:_HALF])}-{''.join(letters[_HALF:])}"


def make_device_code() -> str:
    return secrets.token_urlsafe(_DEVICE_BYTES)


def digest(purpose: str, code: str) -> bytes:
    """Returns the HMAC that is stored instead of a code. `purpose` is the enrollment's kind, or `user`."""
    return digests(purpose, code)[0]


def digests(purpose: str, code: str) -> list[bytes]:
    return [
        salted_hmac(f"pipedai.enrollment.{purpose}", code, secret=key, algorithm="sha256").digest()
        for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    ]
