"""Invites e-mail addresses into environments, and accepts and revokes the invitations (SPEC §15)."""

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.emails import Email
from accounts.mail.outbox import INVITATION_LIFETIME, hand_over, queue_mail
from accounts.mail.tokens import LinkUnusable, find_mail, make_void, use_up
from accounts.models import AccountMail, User
from accounts.proof import check_proof, keeps_address, proof_counts
from accounts.throttles import MAILS_AN_HOUR
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, NotFound, or_not_found
from pipedai.api.throttling import Rate, check_rate, too_many_requests
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import fetch_one
from workspaces.ceilings import check_ceiling
from workspaces.locks import hold_role, hold_role_of_user, lock_environment
from workspaces.members import check_may_grant, check_room_for_member
from workspaces.models import Environment, Invitation, Membership
from workspaces.roles import Role

if TYPE_CHECKING:
    from django.db.models import QuerySet

Purpose = AccountMail.Purpose
# How many mails to others a workspace may cause (SPEC §14).
INVITATIONS_OF_WORKSPACE = Rate("invite-workspace", limit=100, seconds=86_400)

# Locks the row of the user until the transaction ends, so that nobody changes their address meanwhile.
_HOLD_USER = "SELECT FROM user_account WHERE id = %(id)s FOR SHARE"


# Invitations that were neither accepted nor revoked. Expired ones are among them.
IS_OPEN = Q(accepted_at__isnull=True, revoked_at__isnull=True)


def open_invitations(environment_id: UUID) -> "QuerySet[Invitation]":
    return Invitation.objects.filter(IS_OPEN, environment_id=environment_id)


def invite(
    *, environment_id: UUID, email: Email, role: Role, actor: Actor
) -> tuple[Invitation, str | None]:
    """Invites an address into the environment and queues the mail. Without a mail server, no mail is queued, and the
    link of the invitation is returned too, for the caller to hand over; nobody else sees it.

    Raises Forbidden for a role above the caller's own. Raises Conflict if the caller has not proved their address, if
    the address is a member's or is invited already, or if the environment has as many invitations as it may. Raises
    TooManyRequests if the workspace has sent too many, or the address got too many mails.
    """
    try:
        with transaction.atomic():
            lock_environment(environment_id)
            own = hold_role(actor, environment_id, Role.ADMIN)
            check_may_grant(own, role)
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
            emit(_event("invitation.created", invitation, actor))
    except IntegrityError:
        raise Conflict(
            "This address has an open invitation: revoke it to send another one.",
            code=ErrorCode.ALREADY_INVITED,
        ) from None
    return invitation, link


def revoke_invitation(*, environment_id: UUID, invitation_id: UUID, actor: Actor) -> None:
    """Revokes an open invitation, so that its link does not work any more. Raises NotFound for any other."""
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        invitation = or_not_found(open_invitations(environment_id).filter(id=invitation_id).first())
        Invitation.objects.filter(id=invitation.id).update(revoked_at=Now())
        make_void(Q(id=invitation.mail_id))
        emit(_event("invitation.revoked", invitation, actor))


def accept_invitation(*, token: str, user_id: UUID, actor: Actor) -> Membership:
    """Makes the signed-in user a member. Raises LinkUnusable, and Conflict for an unproved or a member's address."""
    mail = find_mail(token, Purpose.INVITATION)
    try:
        with transaction.atomic():
            invitation = _invitation_of(mail)
            _lock(invitation.environment_id)
            # Several transactions may hold this lock at once, so two users who accept invitations of each other can't
            # block each other.
            fetch_one(_HOLD_USER, {"id": user_id})
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
    # No account has the address: they register.
    REGISTER = "register"
    # An account has the address and never proved it. They register, and it is closed.
    REPLACE = "replace"
    # They need an account, and nobody may register: they ask the operator.
    ASK = "ask"


def find_invitation(*, token: str, user_id: UUID | None) -> tuple[Invitation, NextStep]:
    """Returns the invitation with this token, and what its reader, who may be signed in, does next. Raises
    LinkUnusable.
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


def lock_environments(user_id: UUID | None, mail: AccountMail) -> None:
    """Locks the environments whose members change, then the inviter. That comes before the address is taken, because an
    inviter who takes the same address at the same moment could deadlock. Raises LinkUnusable.
    """
    invitation = Invitation.objects.filter(mail_id=mail.id).first()
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
    emit(
        Event(
            "invitation.accepted",
            replace(actor, id=user.id),
            invitation.environment_id,
            "user",
            user.id,
            {"role": invitation.role, "invitationId": str(invitation.id)},
        )
    )
    return member


def _lock(environment_id: UUID) -> None:
    """Raises LinkUnusable if the environment has been deleted."""
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
    address has had as many mails as it may.
    """
    facts = {
        "environment": environment.name,
        "workspace": environment.workspace.name,
        "role": role.value,
        "inviter": inviter.name or inviter.email,
        "inviter_email": inviter.email,
        "closed": settings.REGISTRATION == "closed",
    }
    if not proof_counts():
        return hand_over(Purpose.INVITATION, address=email, user_id=None, facts=facts)
    mail = queue_mail(Purpose.INVITATION, address=email, user_id=None, facts=facts)
    if mail is None:
        raise too_many_requests(MAILS_AN_HOUR, MAILS_AN_HOUR.seconds)
    return mail, None


def _event(action: str, invitation: Invitation, actor: Actor) -> Event:
    metadata = {"role": invitation.role}
    return Event(action, actor, invitation.environment_id, "invitation", invitation.id, metadata)
