"""Adds members to environments, changes their roles, and removes them (SPEC §4, §15).

Each call locks the environment first, so that it keeps an owner; a constraint trigger ensures the same.
"""

from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from accounts.emails import Email
from accounts.models import User
from accounts.services import find_user
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Forbidden, NotFound, or_not_found
from pipedai.events import Actor, Event, emit
from pipedai.logs import get_logger
from pipedai.sql import fetch_one
from workspaces.api_keys import (
    revoke_keys_beyond,
    revoke_keys_of_displaced,
    revoked_because,
)
from workspaces.ceilings import check_ceiling
from workspaces.locks import hold_role, lock_environment
from workspaces.models import ApiKey, Membership
from workspaces.roles import Role, check_includes

log = get_logger(__name__)

# Keeps the account from being displaced (accounts/proof.py) until the membership is committed. A displacement
# after that ends this membership too. Nothing else waits for this lock.
_HOLD_USER = "SELECT FROM user_account WHERE id = %(id)s AND is_active FOR KEY SHARE"


def add_member(
    *,
    environment_id: UUID,
    role: Role,
    user_id: UUID | None = None,
    email: Email | None = None,
    actor: Actor,
) -> Membership:
    """Either `user_id` or `email` names the user. Raises Forbidden for a role above the caller's, NotFound, Conflict
    for a member, CeilingReached.
    """
    try:
        with transaction.atomic():
            lock_environment(environment_id)
            own = hold_role(actor, environment_id, Role.ADMIN)
            check_may_grant(own, role)
            user = _user(user_id, email)
            check_room_for_member(environment_id)
            member = Membership.objects.create(
                environment_id=environment_id, user=user, role=role.value
            )
            emit(_event("member.added", environment_id, user.id, actor, {"role": role.value}))
    except IntegrityError:
        raise Conflict("This user is a member already.", code=ErrorCode.ALREADY_MEMBER) from None
    return member


def change_role(*, environment_id: UUID, user_id: UUID, role: Role, actor: Actor) -> Membership:
    """The keys that the member may not have with this role are revoked. Raises NotFound, Forbidden if only an
    owner may do this, Conflict for the last owner.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        own = hold_role(actor, environment_id, Role.ADMIN)
        member = _member(environment_id, user_id)
        check_may_grant(own, role)
        _check_may_take(own, member)
        old = Role(member.role)
        if role is old:
            return member
        _check_another_owner(member)
        Membership.objects.filter(id=member.id).update(role=role.value)
        member.role = role.value
        changes = {
            "role": [old.value, role.value],
            **_revoke_keys(environment_id, user_id, role),
        }
        emit(_event("member.role-changed", environment_id, user_id, actor, changes))
    return member


def remove_member(*, environment_id: UUID, user_id: UUID, actor: Actor) -> None:
    """Ends a membership: one's own, or an admin that of others. Unused `wrk_` keys of the user are revoked, and keys of
    their command lines; other `pwk_` and `hos_` keys stay, and the audit row lists them. Raises NotFound, Forbidden,
    Conflict for the last owner.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        own = hold_role(actor, environment_id, Role.VIEWER)
        member = _member(environment_id, user_id)
        if user_id != actor.id:
            check_includes(own, Role.ADMIN)
            _check_may_take(own, member)
        _check_another_owner(member)
        Membership.objects.filter(id=member.id).delete()
        changes = {
            "role": [member.role, None],
            **_revoke_keys(environment_id, user_id, None),
            "keysLivingOn": [str(key) for key in _keys_living_on(environment_id, user_id)],
        }
        emit(_event("member.removed", environment_id, user_id, actor, changes))


def end_rights(user_id: UUID, actor: Actor) -> None:
    """Removes the memberships of a displaced user, and revokes their keys. The membership of a last owner stays,
    because an environment must keep one; a log line tells staff of it.
    """
    events = []
    for member in Membership.objects.filter(user_id=user_id).order_by("environment_id"):
        if is_last_owner(member):
            log.warning(
                "user.displaced_last_owner",
                user_id=str(user_id),
                environment_id=str(member.environment_id),
            )
            continue
        member.delete()
        metadata = {"role": [member.role, None], "because": "user.displaced"}
        events.append(_event("member.removed", member.environment_id, user_id, actor, metadata))
    events += revoked_because("user.displaced", revoke_keys_of_displaced(user_id), actor)
    emit(*events)


def is_last_owner(member: Membership) -> bool:
    """Returns whether the member is an owner, and the environment has no other one."""
    owners = Membership.objects.filter(environment_id=member.environment_id, role=Role.OWNER)
    return member.role == Role.OWNER and not owners.exclude(id=member.id).exists()


def _user(user_id: UUID | None, email: Email | None) -> User:
    if user_id is None:
        assert email is not None, "the body names the user by either"
        user_id = find_user(email).id
    if fetch_one(_HOLD_USER, {"id": user_id}) is None:
        raise NotFound
    return User.objects.get(id=user_id)


def _member(environment_id: UUID, user_id: UUID) -> Membership:
    return or_not_found(
        Membership.objects.select_related("user")
        .filter(environment_id=environment_id, user_id=user_id)
        .first()
    )


def check_room_for_member(environment_id: UUID) -> None:
    """Raises CeilingReached if the environment, which the caller has locked, has as many members as it may."""
    members = Membership.objects.filter(environment_id=environment_id)
    check_ceiling("members", "members", environment_id=environment_id, rows=members)


def check_may_grant(own: Role, role: Role) -> None:
    if not own.includes(role):
        raise Forbidden(f"Only an {Role.OWNER.value} may grant this role.")


def _check_may_take(own: Role, member: Membership) -> None:
    if not own.includes(Role(member.role)):
        raise Forbidden(f"Only an {Role.OWNER.value} may take this role away.")


def _check_another_owner(member: Membership) -> None:
    if is_last_owner(member):
        raise Conflict("An environment must keep at least one owner.", code=ErrorCode.LAST_OWNER)


def _revoke_keys(environment_id: UUID, user_id: UUID, role: Role | None) -> dict[str, list[str]]:
    """Returns what the audit row is to say about the revoked keys."""
    ids = revoke_keys_beyond(user_id=user_id, environment_id=environment_id, role=role)
    return {"keysRevoked": [str(key_id) for key_id in ids]} if ids else {}


def _keys_living_on(environment_id: UUID, user_id: UUID) -> Any:
    """Returns the keys that stay when the membership ends, with those of hosts that the user let in."""
    return (
        ApiKey.objects.filter(
            environment_id=environment_id,
            kind__in=(ApiKey.Kind.PWK, ApiKey.Kind.HOS),
            created_by_id=user_id,
            revoked_at__isnull=True,
        )
        .order_by("id")
        .values_list("id", flat=True)
    )


def _event(
    action: str, environment_id: UUID, user_id: UUID, actor: Actor, metadata: dict[str, Any]
) -> Event:
    return Event(action, actor, environment_id, "user", user_id, metadata)
