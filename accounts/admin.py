"""The admin pages of users, their sessions, and the mails about their accounts."""

from collections.abc import Callable

from django.contrib.admin import register
from django.http import HttpRequest

from accounts.addresses import is_displaced
from accounts.authenticators import has_authenticator, remove_authenticator
from accounts.models import AccountMail, AccountMailAttempt, Identity, Session, User
from accounts.own_account import erase_account
from accounts.services import deactivate_user, reactivate_user
from accounts.unlinking import unlink_for_staff
from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin, SupportAction
from pipedai.admin.columns import Panel, attempts, moment
from pipedai.admin.site import site
from pipedai.api.errors import Forbidden
from pipedai.events import Actor

_DISPLACED = (
    "Somebody else proved that the e-mail address was theirs, or the account was deleted. It has a placeholder instead,"
    " and can't be reactivated."
)


def _account(user: User, _: HttpRequest) -> Panel:
    facts = [("Authenticator", "on" if has_authenticator(user.id) else "off")]
    if identity := Identity.objects.filter(user=user).first():
        facts += [
            ("Signs in at", f"{identity.issuer} as {identity.sub}"),
            ("Linked", moment(identity.created_at)),
            ("Last signed in there", moment(identity.last_used_at)),
            ("E-mail address there", identity.address or "not told"),
        ]
    return Panel("Account", _DISPLACED if is_displaced(user) else "", facts)


def _of_others(act: Callable[..., None], refusal: str) -> Callable[[User, Actor], None]:
    def carry_out(user: User, actor: Actor) -> None:
        if user.id == actor.id:
            raise Forbidden(refusal)
        act(user_id=user.id, actor=actor)

    return carry_out


@register(User, site=site)
class UserAdmin(StaffModelAdmin):
    named_by = "email"
    list_display = ("email", "name", "is_active", "is_staff", "created_at")
    search_fields = ("email", "name")
    found_by_user = ("pk",)
    looks_through = OF_CUSTOMERS
    hidden = ("password",)
    panels = (_account,)
    support = {
        "deactivate": SupportAction(
            "Deactivate the user",
            "Every session of theirs ends and they can't log in again. Unused wrk_ keys that they minted die for good;"
            " memberships and pwk_ keys stay.",
            _of_others(deactivate_user, "You can't deactivate yourself: another of the staff can."),
            lambda user: user.is_active,
        ),
        # A displaced account has a placeholder for its address, so nobody could log in to it or get mail about it.
        "reactivate": SupportAction(
            "Reactivate the user", "They can log in again. Sessions and keys that have ended stay so.",
            lambda user, actor: reactivate_user(user_id=user.id, actor=actor),
            lambda user: not user.is_active and not is_displaced(user),
        ),
        "delete": SupportAction(
            "Delete the account",
            "It can't be brought back. Its sessions, memberships and keys of command lines end, and its e-mail address"
            " is free for somebody else. What it made in environments stays.",
            _of_others(erase_account, "Your own is deleted on your account's page in the console."),
            lambda user: user.is_active,
        ),
        "unlink": SupportAction(
            "End the link to the sign-in service",
            "The sessions that began by it end, and a mail tells the user. They sign in by their password, or link the"
            " account anew.",
            lambda user, actor: unlink_for_staff(user_id=user.id, actor=actor),
            lambda user: Identity.objects.filter(user=user).exists(),
        ),
        "remove-authenticator": SupportAction(
            "Turn off the authenticator",
            "Their password alone opens admin until they set up another one. Be sure that it is them who ask.",
            _of_others(remove_authenticator, "Your own is turned off on the page of your account, with a code."),
            lambda user: has_authenticator(user.id),
        ),
    }  # fmt: skip


# A session of Django admin has a digest of its key, which no page shows.
site.register(Session, StaffModelAdmin, hidden=("data",), indexes={("user",): "id"})
# A mail's token is stored nowhere, and no page shows its digest.
site.register(
    AccountMail, StaffModelAdmin, search_fields=("address",), panels=(attempts(AccountMailAttempt, "mail"),),
    list_display=("created_at", "purpose", "address", "status", "expires_at", "ended_at"),
)  # fmt: skip
