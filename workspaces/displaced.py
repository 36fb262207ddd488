"""Ends what a displaced account has in environments: its memberships and the keys that it made (SPEC §15)."""

from uuid import UUID

from django.db.models.functions import Now

from accounts.models import AccountMail
from pipedai.api.errors import NotFound
from pipedai.events import Actor, Event, emit
from pipedai.logs import get_logger
from pipedai.wakeups import wake_workers
from workspaces.invitations import environment_of, hold_inviter
from workspaces.locks import lock_environment
from workspaces.models import ApiKey, Membership
from workspaces.roles import Role

log = get_logger(__name__)

_BECAUSE = {"because": "user.displaced"}


def lock_environments(user_id: UUID | None, mail: AccountMail) -> None:
    """Locks the environments whose members change: those of the account that may be displaced, and the one into which
    the mail invites. Then locks the user who invited, and raises LinkUnusable if they may not invite any more.

    The inviter is locked before the address is taken. Otherwise an inviter who takes the same address at the same
    moment, and the user who registers with it, would wait for each other.
    """
    environments = set(environment_of(mail))
    if user_id is not None:
        theirs = Membership.objects.filter(user_id=user_id)
        environments.update(theirs.values_list("environment_id", flat=True))
    for environment_id in sorted(environments):
        try:
            lock_environment(environment_id)
        except NotFound:
            # The environment has been deleted, so nobody sees it, and its keys do not work.
            continue
    hold_inviter(mail)


def end_rights(user_id: UUID, actor: Actor) -> None:
    """Removes the memberships of a displaced user and revokes all keys that they made.

    Where the user is the last owner, their membership stays, since an environment must keep an owner. Nobody can use
    this membership. A log line and the user's page in Django admin tell staff, so that they find another owner.
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
        metadata = {"role": [member.role, None], **_BECAUSE}
        events.append(
            Event("member.removed", actor, member.environment_id, "user", user_id, metadata)
        )
    events += [
        Event("api-key.revoked", actor, key.environment_id, "api-key", key.id, _BECAUSE)
        for key in _revoke_keys(user_id)
    ]
    emit(*events)


def is_last_owner(member: Membership) -> bool:
    """Returns whether the member is an owner, and the environment has no other one."""
    owners = Membership.objects.filter(environment_id=member.environment_id, role=Role.OWNER)
    return member.role == Role.OWNER and not owners.exclude(id=member.id).exists()


def _revoke_keys(user_id: UUID) -> list[ApiKey]:
    """Revokes the keys that the user made, the keys of hosts that the user let into the environment, and the unused
    `wrk_` keys that any of these keys asked for. Locks all these keys in the order of their ids.
    """
    own = ApiKey.objects.filter(created_by_id=user_id, revoked_at__isnull=True)
    parents = list(own.values_list("id", flat=True))
    locked = ApiKey.objects.select_for_update(no_key=True).filter(
        revoked_at__isnull=True, consumed_at__isnull=True
    )
    keys = list(
        (locked.filter(created_by_id=user_id) | locked.filter(parent_id__in=parents)).order_by("id")
    )
    ids = [key.id for key in keys]
    ApiKey.objects.filter(id__in=ids).update(revoked_at=Now())
    wake_workers(ids)  # This ends the event streams that the revoked keys opened.
    return keys
