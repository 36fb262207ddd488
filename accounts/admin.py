"""The admin pages of users, their sessions, and the mails about their accounts."""

from django.contrib.admin import register
from django.http import HttpRequest

from accounts.authenticators import has_authenticator, remove_authenticator
from accounts.models import AccountMail, AccountMailAttempt, Session, User
from accounts.proof import is_displaced
from accounts.services import deactivate_user, reactivate_user
from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin
from pipedai.admin.columns import Panel, attempts
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.api.errors import Forbidden
from pipedai.events import Actor
from pipedai.sql import database_now

_DISPLACED = (
    "Somebody else proved that the address was theirs, and has an account with it. This one has a placeholder instead,"
    " and can't be reactivated."
)


def _account(user: User, _: HttpRequest) -> Panel:
    authenticator = "on" if has_authenticator(user.id) else "off"
    return Panel(
        "Account", _DISPLACED if is_displaced(user) else "", [("Authenticator", authenticator)]
    )


def _deactivate(user: User, actor: Actor) -> None:
    if user.id == actor.id:
        raise Forbidden("You can't deactivate yourself: another of the staff can.")
    deactivate_user(user_id=user.id, actor=actor)


def _remove_authenticator(user: User, actor: Actor) -> None:
    if user.id == actor.id:
        raise Forbidden("Your own is turned off on the page of your account, with a code.")
    remove_authenticator(user.id, actor=actor)


@register(User, site=site)
class UserAdmin(StaffModelAdmin):
    named_by = "email"
    list_display = ("email", "name", "state", "is_staff", "created_at")
    list_filter = ("is_active", "is_staff")
    search_fields = ("email", "name")
    looks_through = OF_CUSTOMERS
    hidden = ("password",)
    reads = ("is_active",)
    panels = (_account,)
    support = (
        SupportAction(
            "deactivate",
            "Deactivate the user",
            "Every session of theirs ends and they can't log in again. Unused wrk_ keys that they minted die for good;"
            " memberships and pwk_ keys stay.",
            "The user is deactivated.",
            applies=lambda user: user.is_active,
            perform=_deactivate,
        ),
        SupportAction(
            "reactivate",
            "Reactivate the user",
            "They can log in again. Sessions and keys that have ended stay so.",
            "The user is active again.",
            # A displaced account has a placeholder for its address, so nobody could log in to it or get mail about it.
            applies=lambda user: not user.is_active and not is_displaced(user),
            perform=lambda user, actor: reactivate_user(user_id=user.id, actor=actor),
        ),
        SupportAction(
            "remove-authenticator",
            "Turn off the authenticator",
            "Their password alone opens admin until they set up another one. Be sure that it is them who ask.",
            "The authenticator is off.",
            applies=lambda user: has_authenticator(user.id),
            perform=_remove_authenticator,
        ),
    )

    def state(self, user: User) -> str:
        if is_displaced(user):
            return "displaced"
        return "active" if user.is_active else "deactivated"


@register(Session, site=site)
class SessionAdmin(StaffModelAdmin):
    """A session of admin has a digest of its key."""

    list_display = (
        "created_at",
        "user",
        "address",
        "user_agent",
        "last_used_at",
        "expires_at",
        "revoked_at",
    )
    list_filter = ("user",)
    indexes = {("user",): "id"}
    hidden = ("data",)


@register(AccountMail, site=site)
class AccountMailAdmin(StaffModelAdmin):
    """Shows all mails about accounts. A mail's token is stored nowhere, and no page shows its digest."""

    list_display = ("created_at", "purpose", "address", "status", "link")
    list_filter = ("status", "purpose", "user")
    search_fields = ("address",)
    indexes = {("user",): "created_at"}
    reads = ("expires_at", "ended_at")
    panels = (attempts(AccountMailAttempt, "mail"),)

    def link(self, mail: AccountMail) -> str:
        if mail.expires_at is None:
            return "none"
        if mail.ended_at is not None:
            return "used or void"
        return "works" if mail.expires_at > database_now() else "expired"
