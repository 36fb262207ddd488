"""Issues and revokes the codes by which an admin lets a host enroll."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, or_not_found
from pipedai.events import Actor, Event, emit
from workers.enrollment.codes import digest
from workers.models import Enrollment
from workspaces.ceilings import check_ceiling
from workspaces.locks import (
    checked_pools,
    hold_environment,
    hold_role,
    hold_role_of_user,
    lock_environment,
    pool_metadata,
)
from workspaces.roles import Role
from workspaces.serializers import WRK_LIFETIME


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
    """Makes an enrollment and returns it with its `enr_` code, of which an HMAC is stored. It expires after a day
    unless `expires_at` says otherwise. Raises NotFound, Invalid for a missing pool, CeilingReached, and the errors of
    `hold_role_of_user`.
    """
    code = tokens.mint("enr")
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role_of_user(user_id, environment_id, Role.ADMIN)
        _check_room(environment_id)
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
    """Revokes the enrollment. A repetition changes nothing. Raises NotFound, and Conflict if a host has redeemed it:
    then its `hos_` key must be revoked.
    """
    own = Enrollment.objects.filter(id=enrollment_id, environment_id=environment_id)
    with transaction.atomic():
        hold_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        if own.filter(revoked_at__isnull=True, consumed_at__isnull=True).update(revoked_at=Now()):
            emit(event("enrollment.revoked", own.get(), actor, {}))
            return
        enrollment = or_not_found(own.first())
        if enrollment.consumed_at is not None:
            raise Conflict(
                "The enrollment has been redeemed: revoke the host's key (hos_) instead.",
                code=ErrorCode.ENROLLMENT_REDEEMED,
            )


def event(action: str, enrollment: Enrollment, actor: Actor, metadata: dict[str, Any]) -> Event:
    metadata = {"kind": enrollment.kind, "label": enrollment.label, **metadata}
    return Event(action, actor, enrollment.environment_id, "enrollment", enrollment.id, metadata)


def _check_room(environment_id: UUID) -> None:
    usable = Enrollment.objects.filter(
        Q(expires_at__gt=Now()),
        environment_id=environment_id,
        revoked_at__isnull=True,
        consumed_at__isnull=True,
    )
    check_ceiling("enrollments", "usable enrollments", environment_id=environment_id, rows=usable)
