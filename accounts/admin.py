"""Django admin's pages of users and their sessions."""

from typing import Any
from uuid import UUID

from django.contrib.admin import display, register
from django.db.models import Q

from accounts.authenticators import has_authenticator, remove_authenticator
from accounts.deactivation import deactivate_user, reactivate_user
from accounts.displacement import is_displaced
from accounts.emails import NotAnEmail, read_email
from accounts.mail.admin import mails_of
from accounts.models import Session, User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import ident, link_to, list_of, moment, state, text, yes
from pipedai.api.errors import Forbidden
from pipedai.events import Actor

_DISPLACED = (
    "Somebody else proved that the address was theirs, and has an account with it. This one has a placeholder instead,"
    " and can't be reactivated."
)

# How many of a user's newest mails their page shows.
_MAILS_SHOWN = 10


def id_of_address(address: str) -> UUID | None:
    """Returns the id of the user with this e-mail address, or None if there is no such user. Upper and lower case count
    as the same.
    """
    try:
        email = read_email(address)
    except NotAnEmail:
        return None
    return User.objects.with_address(email).values_list("id", flat=True).first()


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
    icon = "person"
    when_empty = "Nobody has an account yet."
    list_display = ("email", "name", "shown_state", "is_staff", "created")
    list_filter = ("is_active", "is_staff")
    list_reads = ("id", "email", "name", "is_active", "is_staff", "created_at")
    searched_text = {"email": "e-mail address", "name": "name"}
    searched_address = "e-mail address"
    looks_through = LOOKS_THROUGH_CUSTOMERS
    never_read = ("password",)
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

    def found_by_address(self, address: str) -> Q | None:
        user_id = id_of_address(address)
        return None if user_id is None else Q(id=user_id)

    @display(description="State")
    def shown_state(self, user: User) -> Any:
        """Shows whether the user is active, was deactivated, or has lost the address to somebody who proved it."""
        if is_displaced(user):
            return state("displaced")
        return state("active" if user.is_active else "deactivated")

    @display(description="Registered")
    def created(self, user: User) -> Any:
        return moment(user.created_at)

    def title_of(self, row: User) -> str:
        return row.email

    def story(self, row: User) -> list[Panel]:
        """Returns the panels of a user's page: the user's facts, their newest sessions, and the newest mails about the
        account.
        """
        newest = Session.objects.filter(user=row).order_by("-id")[:10]
        return [
            Facts(
                "User",
                [
                    ("E-mail address", row.email),
                    ("Confirmed", moment(row.email_verified_at) if row.has_proved_email else "no"),
                    ("Name", text(row.name)),
                    ("State", self.shown_state(row)),
                    *([("Displaced", _DISPLACED)] if is_displaced(row) else []),
                    ("Staff", yes(row.is_staff)),
                    ("Authenticator", "on" if has_authenticator(row.id) else "off"),
                    ("Registered", moment(row.created_at)),
                    ("Id", ident(row.id)),
                ],
            ),
            Table(
                "Newest sessions",
                ("Opened", "At", "Last used", "From", "Browser", "Ends", "Ended early"),
                [
                    (
                        moment(each.created_at),
                        _door(each),
                        moment(each.last_used_at),
                        text(each.address),
                        text(each.user_agent),
                        moment(each.expires_at),
                        moment(each.revoked_at),
                    )
                    for each in newest.defer("address_digest", "data")
                ],
                more=list_of(Session, user=row.id),
            ),
            mails_of(row, _MAILS_SHOWN),
        ]


def _door(session: Session) -> str:
    return "API" if session.key_digest is None else "Django admin"


@register(Session, site=site)
class SessionAdmin(StaffModelAdmin):
    """Shows the sessions of the API and of Django admin."""

    when_empty = "Nobody has logged in yet."
    list_display = ("opened", "whose", "door", "ends", "ended")
    list_reads = ("id", "created_at", "expires_at", "revoked_at", "key_digest", "user__email")
    list_filter = (related("user", User),)
    never_read = ("address_digest", "data", "user__password")
    story_joins = ("user",)
    icon = "key"

    @display(description="Opened")
    def opened(self, session: Any) -> Any:
        return moment(session.created_at)

    @display(description="User")
    def whose(self, session: Any) -> Any:
        return link_to(User, session.user_id, session.user.email)

    @display(description="At")
    def door(self, session: Any) -> Any:
        """Shows what the session opens: the API or Django admin."""
        return _door(session)

    @display(description="Ends")
    def ends(self, session: Any) -> Any:
        """Shows when the session expires. Using a session does not lengthen it."""
        return moment(session.expires_at)

    @display(description="Ended early")
    def ended(self, session: Any) -> Any:
        """Shows when the session was ended before it expired, for example by a logout."""
        return moment(session.revoked_at)

    def story(self, row: Any) -> list[Panel]:
        """Returns the panel of a session's page. The page shows no secret: the key in the session's cookie is stored
        nowhere, and the stored digest of that key is left out.
        """
        return [
            Facts(
                "Session",
                [
                    ("User", self.whose(row)),
                    ("Opened", self.opened(row)),
                    ("At", _door(row)),
                    ("Ends", self.ends(row)),
                    ("Ended early", self.ended(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
