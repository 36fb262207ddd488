"""Adds members to environments, also by invitation, changes their roles, and removes them.

Each call locks the environment first, so that the environment keeps an owner; a constraint trigger ensures the same.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from accounts.addresses import check_proof, keeps_address, proof_counts
from accounts.emails import Email
from accounts.mails import (
    INVITATION_LIFETIME,
    LinkUnusable,
    Purpose,
    find_mail,
    hand_over,
    make_void,
    queue_mail,
    use_up,
)
from accounts.models import AccountMail, User
from accounts.services import find_user
from accounts.throttles import MAILS_AN_HOUR
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, Forbidden, NotFound, or_not_found
from pipedai.api.throttling import Rate, check_rate, too_many_requests
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.logs import get_logger
from pipedai.sql import fetch_one
from workspaces.api_keys import (
    revoke_keys_beyond,
    revoke_keys_of_displaced,
    revoked_because,
    usable_keys,
)
from workspaces.ceilings import check_ceiling
from workspaces.connections.models import Connection
from workspaces.locks import changing, hold_role_of_user, lock_environment
from workspaces.models import Environment, Invitation, Membership
from workspaces.roles import Role, check_includes

log = get_logger(__name__)
# How many invitations a workspace may mail in a day.
INVITATIONS_OF_WORKSPACE = Rate("invite-workspace", limit=100, seconds=86_400)
# Keeps the account from being displaced (accounts/addresses.py) until the membership is committed, because a
# displacement then ends this membership too. Nothing else waits for this lock.
_HOLD_USER = "SELECT FROM user_account WHERE id = %(id)s AND is_active FOR KEY SHARE"
# Locks the row of the user until the transaction ends, so that nobody changes their address meanwhile.
_HOLD_ADDRESS = "SELECT FROM user_account WHERE id = %(id)s FOR SHARE"
# Invitations that were neither accepted nor revoked. Expired ones are among them.
IS_OPEN = Q(accepted_at__isnull=True, revoked_at__isnull=True)


def add_member(
    *,
    environment_id: UUID,
    role: Role,
    user_id: UUID | None = None,
    email: Email | None = None,
    actor: Actor,
) -> Membership:
    """Adds a user, who is named by `user_id` or `email`. Raises Forbidden for a role above the caller's, NotFound,
    Conflict for a member, CeilingReached.
    """
    try:
        with changing(environment_id, actor, alone=True) as own:
            _check_may_grant(own, role)
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
    """Changes a role, and revokes the keys that the member may not have with it. Raises NotFound, Forbidden if only an
    owner may do this, Conflict for the last owner.
    """
    with changing(environment_id, actor, alone=True) as own:
        member = _member(environment_id, user_id)
        _check_may_grant(own, role)
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
    """Ends a membership: any member their own, an admin also those of others. The user's unused `wrk_` keys and the
    keys of their command lines are revoked; other `pwk_` and `hos_` keys stay, and the audit row lists them. Raises
    NotFound, Forbidden, Conflict for the last owner.
    """
    with changing(environment_id, actor, Role.VIEWER, alone=True) as own:
        member = _member(environment_id, user_id)
        if user_id != actor.id:
            check_includes(own, Role.ADMIN)
            _check_may_take(own, member)
        _check_another_owner(member)
        _remove(member, actor)


def _remove(member: Membership, actor: Actor) -> None:
    environment_id, user_id = member.environment_id, member.user_id
    Membership.objects.filter(id=member.id).delete()
    living_on = usable_keys(environment_id).filter(created_by_id=user_id).order_by("id")
    changes = {
        "role": [member.role, None],
        **_revoke_keys(environment_id, user_id, None),
        # Other keys of the user stay, among them those of hosts that they let in.
        "keysLivingOn": [str(key_id) for key_id in living_on.values_list("id", flat=True)],
        **_connections_living_on(environment_id, user_id),
    }
    emit(_event("member.removed", environment_id, user_id, actor, changes))


def _connections_living_on(environment_id: UUID, user_id: UUID) -> dict[str, Any]:
    """Returns `connectionsLivingOn` for an audit row: the connections that the user authorized, and by whose account at
    the authorization server runs therefore go on to act. Returns nothing if there are none.
    """
    theirs = Connection.objects.filter(environment_id=environment_id, connected_by_id=user_id)
    named = [
        {"id": str(id_), "name": name}
        for id_, name in theirs.values_list("id", "name").order_by("id")
    ]
    return {"connectionsLivingOn": named} if named else {}


def leave_all(user_id: UUID, actor: Actor) -> None:
    """Ends all memberships of a user who deletes their account, as `remove_member` does. The caller has locked their
    environments (`lock_environments`). Raises Conflict with the environments whose only owner they are.
    """
    members = Membership.objects.filter(user_id=user_id, environment__deleted_at__isnull=True)
    members = members.select_related("environment").order_by("environment_id")
    if alone := [each.environment for each in members if is_last_owner(each)]:
        raise Conflict(
            "You alone own environments: make somebody else an owner, or delete them.",
            code=ErrorCode.LAST_OWNER,
            environments=[{"id": str(each.id), "name": each.name} for each in alone],
        )
    for member in members:
        _remove(member, actor)


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
        metadata = {
            "role": [member.role, None],
            "because": "user.displaced",
            **_connections_living_on(member.environment_id, user_id),
        }
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


def _check_may_grant(own: Role, role: Role) -> None:
    if not own.includes(role):
        raise Forbidden(f"Only an {Role.OWNER.value} may grant this role.")


def _check_may_take(own: Role, member: Membership) -> None:
    if not own.includes(Role(member.role)):
        raise Forbidden(f"Only an {Role.OWNER.value} may take this role away.")


def _check_another_owner(member: Membership) -> None:
    if is_last_owner(member):
        raise Conflict("An environment must keep at least one owner.", code=ErrorCode.LAST_OWNER)


def _revoke_keys(environment_id: UUID, user_id: UUID, role: Role | None) -> dict[str, list[str]]:
    """Revokes keys that no longer fit the role. Returns the part of the audit row about them."""
    ids = revoke_keys_beyond(user_id=user_id, environment_id=environment_id, role=role)
    return {"keysRevoked": [str(key_id) for key_id in ids]} if ids else {}


def _event(
    action: str, environment_id: UUID, user_id: UUID, actor: Actor, metadata: dict[str, Any]
) -> Event:
    return Event(action, actor, environment_id, "user", user_id, metadata)


def open_invitations(environment_id: UUID) -> QuerySet[Invitation]:
    return Invitation.objects.filter(IS_OPEN, environment_id=environment_id)


def invite(
    *, environment_id: UUID, email: Email, role: Role, actor: Actor
) -> tuple[Invitation, str | None]:
    """Invites an address into the environment and queues the mail. Without a mail server, no mail is queued, and the
    link of the invitation is returned too, so that the caller can send it; nobody else sees it.

    Raises Forbidden for a role above the caller's own. Raises Conflict if the caller has not confirmed their address,
    if the address is a member's or is invited already, or if the environment has as many invitations as it may. Raises
    TooManyRequests if the workspace has sent too many, or the address got too many mails.
    """
    try:
        with changing(environment_id, actor, alone=True) as own:
            _check_may_grant(own, role)
            assert actor.id is not None, "the viewset accepts only cookies"
            inviter = User.objects.get(id=actor.id)
            check_proof(inviter)
            _check_room(environment_id, email)
            environment = Environment.objects.select_related("workspace").get(id=environment_id)
            if settings.THROTTLES_ENABLED:
                check_rate(INVITATIONS_OF_WORKSPACE, str(environment.workspace_id))
            mail, link = _queue(environment, email, role, inviter)
            invitation = Invitation.objects.create(
                id=new_id(),
                environment_id=environment_id,
                email=email,
                role=role.value,
                invited_by=inviter,
                mail=mail,
                expires_at=Now() + INVITATION_LIFETIME,
            )
            invitation.refresh_from_db(fields=["expires_at"])
            emit(_invitation_event("invitation.created", invitation, actor))
    except IntegrityError:
        raise Conflict(
            "This e-mail address has an open invitation: revoke it to send another one.",
            code=ErrorCode.ALREADY_INVITED,
        ) from None
    return invitation, link


def revoke_invitation(*, environment_id: UUID, invitation_id: UUID, actor: Actor) -> None:
    """Revokes an open invitation, so that its link does not work any more. Raises NotFound for any other."""
    with changing(environment_id, actor, alone=True):
        invitation = or_not_found(open_invitations(environment_id).filter(id=invitation_id).first())
        Invitation.objects.filter(id=invitation.id).update(revoked_at=Now())
        make_void(Q(id=invitation.mail_id))
        emit(_invitation_event("invitation.revoked", invitation, actor))


def accept_invitation(*, token: str, user_id: UUID, actor: Actor) -> Membership:
    """Makes the signed-in user a member. Raises LinkUnusable, and Conflict for an unproved or a member's address."""
    mail = find_mail(token, Purpose.INVITATION)
    try:
        with transaction.atomic():
            invitation = _invitation_of(mail)
            _lock(invitation.environment_id)
            # Several transactions may hold this lock at once, so users who accept each other's invitations don't
            # deadlock.
            fetch_one(_HOLD_ADDRESS, {"id": user_id})
            user = User.objects.get(id=user_id)
            if mail.address != user.email or not user.is_active:
                raise LinkUnusable
            check_proof(user)
            member = _accept(invitation, user, actor)
            use_up(mail)
    except IntegrityError:
        raise Conflict("You are a member already.", code=ErrorCode.ALREADY_MEMBER) from None
    return member


class NextStep(StrEnum):
    """What the owner of an invited address does next."""

    # The visitor is signed in with the address, and accepts.
    ACCEPT = "accept"
    # An account has the address: they sign in to it.
    SIGN_IN = "sign_in"
    # No account has the address: they register one.
    REGISTER = "register"
    # An account has the address but never confirmed it. They register a new one, and the old one is closed.
    REPLACE = "replace"
    # They need an account, but nobody may register: they ask the operator.
    ASK = "ask"


def find_invitation(*, token: str, user_id: UUID | None) -> tuple[Invitation, NextStep]:
    """Returns the invitation with this token, and what its reader does next. `user_id` is the reader if they are signed
    in. Raises LinkUnusable.
    """
    mail = find_mail(token, Purpose.INVITATION)
    found = Invitation.objects.filter(mail_id=mail.id, environment__deleted_at__isnull=True)
    invitation = found.select_related("environment__workspace", "invited_by").first()
    if invitation is None:
        raise LinkUnusable
    holder = User.objects.filter(email=invitation.email, is_active=True).first()
    if holder is not None and holder.id == user_id:
        return invitation, NextStep.ACCEPT
    if holder is not None and keeps_address(holder):
        return invitation, NextStep.SIGN_IN
    if settings.REGISTRATION == "closed":
        return invitation, NextStep.ASK
    return invitation, NextStep.REPLACE if holder else NextStep.REGISTER


def accept_by_registering(mail: AccountMail, user: User, actor: Actor) -> None:
    """Makes a user who has just registered with the token of an invitation a member. Raises LinkUnusable."""
    _accept(_invitation_of(mail), user, actor)


def lock_environments(user_id: UUID | None, mail: AccountMail | None) -> None:
    """Locks the environments whose members change, then the inviter. Call it before the address is taken, because
    otherwise an inviter who takes the same address at the same moment could cause a deadlock. Raises LinkUnusable.
    """
    invitation = Invitation.objects.filter(mail_id=mail.id).first() if mail else None
    environments = {invitation.environment_id} if invitation else set()
    if user_id is not None:
        theirs = Membership.objects.filter(user_id=user_id)
        environments.update(theirs.values_list("environment_id", flat=True))
    for environment_id in sorted(environments):
        try:
            lock_environment(environment_id)
        except NotFound:
            # The environment has been deleted, so nobody sees it, and its keys do not work.
            continue
    if invitation is not None:
        _check_inviter(invitation)


def _invitation_of(mail: AccountMail) -> Invitation:
    invitation = Invitation.objects.filter(mail_id=mail.id).first()
    if invitation is None:
        raise LinkUnusable
    return invitation


def _accept(invitation: Invitation, user: User, actor: Actor) -> Membership:
    _check_inviter(invitation)
    check_room_for_member(invitation.environment_id)
    # The invitation may have been revoked while this transaction waited for the environment.
    still_open = open_invitations(invitation.environment_id).filter(id=invitation.id)
    if not still_open.update(accepted_at=Now()):
        raise LinkUnusable
    member = Membership.objects.create(
        environment_id=invitation.environment_id, user=user, role=invitation.role
    )
    metadata = {"role": invitation.role, "invitationId": str(invitation.id)}
    who = replace(actor, id=user.id)
    emit(_event("invitation.accepted", invitation.environment_id, user.id, who, metadata))
    return member


def _lock(environment_id: UUID) -> None:
    """Locks an environment. Raises LinkUnusable if it has been deleted."""
    try:
        lock_environment(environment_id)
    except NotFound:
        raise LinkUnusable from None


def _check_inviter(invitation: Invitation) -> None:
    """Raises LinkUnusable if the environment is deleted, or if the inviter may not grant the role any more."""
    role = Role(invitation.role)
    needs = role if role.includes(Role.ADMIN) else Role.ADMIN
    _lock(invitation.environment_id)
    try:
        hold_role_of_user(invitation.invited_by_id, invitation.environment_id, needs)
    except ApiError:
        raise LinkUnusable from None


def _check_room(environment_id: UUID, email: Email) -> None:
    """Ends an expired invitation of the address. Raises Conflict for a member's address, and CeilingReached."""
    if Membership.objects.filter(environment_id=environment_id, user__email=email).exists():
        raise Conflict("This user is a member already.", code=ErrorCode.ALREADY_MEMBER)
    invitations = open_invitations(environment_id)
    invitations.filter(email=email, expires_at__lte=Now()).update(revoked_at=Now())
    check_ceiling(
        "invitations", "open invitations", environment_id=environment_id, rows=invitations
    )


def _queue(
    environment: Environment, email: Email, role: Role, inviter: User
) -> tuple[AccountMail, str | None]:
    """Queues the mail of an invitation, or returns its link if there is no mail server. Raises TooManyRequests if the
    address got too many mails already.
    """
    facts = {
        "environment": environment.name,
        "workspace": environment.workspace.name,
        "role": role.value,
        "inviter": inviter.name or inviter.email,
        "inviter_email": inviter.email,
        "closed": settings.REGISTRATION == "closed" and not settings.OIDC_ISSUER,
    }
    if not proof_counts():
        return hand_over(Purpose.INVITATION, address=email, user_id=None, facts=facts)
    mail = queue_mail(Purpose.INVITATION, address=email, user_id=None, facts=facts)
    if mail is None:
        raise too_many_requests(MAILS_AN_HOUR, MAILS_AN_HOUR.seconds)
    return mail, None


def _invitation_event(action: str, invitation: Invitation, actor: Actor) -> Event:
    metadata = {"role": invitation.role}
    return Event(action, actor, invitation.environment_id, "invitation", invitation.id, metadata)
