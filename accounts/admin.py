"""The admin pages of users, their sessions, and the mails about their accounts."""

from typing import Any

from django.contrib.admin import register

from accounts.authenticators import has_authenticator, remove_authenticator
from accounts.models import AccountMail, AccountMailAttempt, Session, User
from accounts.proof import is_displaced
from accounts.services import deactivate_user, reactivate_user
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS
from pipedai.admin.fields import column, itself, of_row, whether
from pipedai.admin.panels import ATTEMPT, Related, attempts
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import NOTHING, moment, state
from pipedai.api.errors import Forbidden
from pipedai.events import Actor
from pipedai.sql import database_now

_DISPLACED = (
    "Somebody else proved that the address was theirs, and has an account with it. This one has a placeholder instead,"
    " and can't be reactivated."
)


def _deactivate(user: User, actor: Actor) -> None:
    if user.id == actor.id:
        raise Forbidden("You can't deactivate yourself: another of the staff can.")
    deactivate_user(user_id=user.id, actor=actor)


def _remove_authenticator(user: User, actor: Actor) -> None:
    if user.id == actor.id:
        raise Forbidden("Your own is turned off on the page of your account, with a code.")
    remove_authenticator(user.id, actor=actor)


def _state(user: User) -> Any:
    if is_displaced(user):
        return state("displaced")
    return state("active" if user.is_active else "deactivated")


def _link_state(mail: AccountMail) -> str:
    if mail.expires_at is None:
        return "none"
    if mail.ended_at is not None:
        return "used or void"
    return "works" if mail.expires_at > database_now() else "expired"


@register(User, site=site)
class UserAdmin(StaffModelAdmin):
    icon = "person"
    group = "People"
    when_empty = "Nobody has an account yet."
    named_by = "email"
    columns = ("email", "name", "State", "is_staff", ("Registered", "created_at"))
    list_filter = ("is_active", "is_staff")
    searched_text = {"email": "e-mail address", "name": "name"}
    searched_address = ("id", "e-mail address")
    looks_through = LOOKS_THROUGH_CUSTOMERS
    never_read = ("password",)
    left_out = ("must_prove_email",)  # It marks accounts that are older than the request for proof.
    facts = (
        ("E-mail address", "email"),
        ("Confirmed", column("email_verified_at", lambda at: moment(at) if at else "no")),
        "name",
        ("State", of_row(_state, "email", "is_active")),
        ("Displaced", of_row(lambda user: _DISPLACED if is_displaced(user) else NOTHING)),
        ("Staff", "is_staff"),
        ("Authenticator", of_row(lambda user: "on" if has_authenticator(user.id) else "off")),
        ("Registered", "created_at"),
        "id",
    )
    panels = (
        Related(
            "Newest sessions", Session,
            ("Opened", "Of admin", "Last used", "From", "Browser", "Ends", "Ended early"), by="user", shown=10,
        ),
        Related(
            "Newest mails", AccountMail,
            (("Mail", itself()), "Queued", "What for", "To", "State", "Its link", ("Until", "expires_at")), by="user",
            order=("-created_at",), shown=10,
        ),
    )  # fmt: skip
    support = (
        SupportAction(
            "deactivate",
            "Deactivate the user",
            "Every session of theirs ends and they can't log in again. Unused wrk_ keys that they minted die for good;"
            " memberships and pwk_ keys stay.",
            "The user is deactivated.",
            applies=lambda user: user.is_active,
            perform=_deactivate,
            is_harsh=True,
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
            is_harsh=True,
        ),
    )


@register(Session, site=site)
class SessionAdmin(StaffModelAdmin):
    icon = "key"
    group = "People"
    when_empty = "Nobody has logged in yet."
    columns = ("Opened", "user", "Of admin", "Ends", "Ended early")
    list_filter = ("user",)
    never_read = ("data",)
    facts = (
        "user", ("Opened", "created_at"), ("Of admin", whether("key_digest")), "last_used_at", ("From", "address"),
        ("Browser", "user_agent"), ("Ends", "expires_at"), ("Ended early", "revoked_at"), "id",
    )  # fmt: skip


@register(AccountMail, site=site)
class AccountMailAdmin(StaffModelAdmin):
    """Shows all mails about accounts. A mail's token is stored nowhere, and no page shows its digest."""

    icon = "mail"
    group = "People"
    when_empty = "No mail was to be sent yet: nobody has registered."
    columns = (("Mail", itself()), "What for", "To", "State", "Queued", "Its link")
    list_filter = ("status", "purpose")
    searched_text = {"address": "e-mail address"}
    left_out = ("host",)  # All mails go to the same mail server.
    facts = (
        ("What for", of_row(AccountMail.get_purpose_display, "purpose")), ("To", "address"), ("About", "user"),
        ("State", column("status", state)), ("Queued", "created_at"), ("Attempts", "attempt_count"), "next_attempt_at",
        ("Delivered", "delivered_at"), ("Its link", of_row(_link_state, "expires_at", "ended_at")),
        ("Says", "facts"), "id",
    )  # fmt: skip
    panels = (attempts(AccountMailAttempt, "mail", columns=ATTEMPT[:-1]),)
