"""The mails about accounts and their one-time tokens: queues the mails, writes their texts, and uses the tokens up.

A transaction that uses a token locks environments first, then users, and the mail's row last.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from accounts.models import AccountMail, AccountMailAttempt
from accounts.throttles import MAILS_A_DAY, MAILS_AN_HOUR
from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.api.throttling import count_hit
from pipedai.ids import new_id
from pipedai.links import link_to_page
from pipedai.outgoing.kinds import Kind, NeverSend
from pipedai.outgoing.mails import Mail, compose, mail_host
from pipedai.sql import Row

Purpose = AccountMail.Purpose
_PREFIX = "acc"
# How long the tokens of invitations work, and also those of all links that are handed over.
INVITATION_LIFETIME = timedelta(days=7)
LINK_LIFETIME, UNDO_LIFETIME = timedelta(hours=1), timedelta(days=7)
# The mails whose tokens undo a link, and give the account the address back to which the mail went.
UNDOING = (Purpose.LINK_NOTICE, Purpose.FOLLOW_NOTICE)


@dataclass(frozen=True, slots=True)
class _Mails:
    # The subject and `why` may contain names of facts in braces. The values of the facts replace them.
    subject: str
    why: str
    # The page to which the mail's link leads, and how long the token in it works. A mail without a page has no token,
    # and leads to the page where users change their password, or to that of their account.
    page: str = ""
    lifetime: timedelta = timedelta(hours=24)
    # Mails with the same word here share the limits for an address. With one limit for all mails, a stranger who causes
    # many invitations or confirmations could keep away the mail with which the owner of an address gets a new password
    # or takes the address back. Mails that warn the owner of an account have no limit.
    counted_as: str = ""


_MAILS: Mapping[str, _Mails] = MappingProxyType(
    {
        Purpose.VERIFY: _Mails(
            "Confirm your e-mail address",
            "You get this mail because somebody registered at PipedAI with this e-mail address.",
            page="verify",
            counted_as="confirmation",
        ),
        Purpose.CHANGE: _Mails(
            "Confirm your new e-mail address",
            "You get this mail because somebody wants to use this e-mail address for their PipedAI account.",
            page="verify",
            counted_as="confirmation",
        ),
        Purpose.CHANGE_NOTICE: _Mails(
            "Your e-mail address is about to change",
            "You get this mail because a PipedAI account has this e-mail address.",
        ),
        Purpose.RESET: _Mails(
            "Set a new password",
            "You get this mail because somebody asked for a new password for this e-mail address at PipedAI.",
            page="reset",
            lifetime=timedelta(hours=1),
            counted_as="recovery",
        ),
        Purpose.REGISTRATION: _Mails(
            "Your e-mail address at PipedAI",
            "You get this mail because somebody wants to register at PipedAI with this e-mail address.",
            page="register",
            counted_as="recovery",
        ),
        Purpose.INVITATION: _Mails(
            "An invitation to {environment}",
            "You get this mail because a user of PipedAI entered this e-mail address.",
            page="invitation",
            lifetime=INVITATION_LIFETIME,
            counted_as="invitation",
        ),
        Purpose.LINK: _Mails(
            "Link your account",
            "You get this mail because somebody with this e-mail address has signed in at the sign-in service of"
            " PipedAI.",
            page="link",
            lifetime=LINK_LIFETIME,
            counted_as="recovery",
        ),
        Purpose.LINK_NOTICE: _Mails(
            "Your account was linked",
            "You get this mail because a PipedAI account has this e-mail address.",
            page="undo",
            lifetime=UNDO_LIFETIME,
        ),
        Purpose.FOLLOW_NOTICE: _Mails(
            "Your e-mail address changes",
            "You get this mail because a PipedAI account had this e-mail address.",
            page="undo",
            lifetime=UNDO_LIFETIME,
        ),
        Purpose.UNLINK_NOTICE: _Mails(
            "Your account is not linked any more",
            "You get this mail because a PipedAI account has this e-mail address.",
        ),
    }
)


def lifetime_of(purpose: Purpose) -> timedelta | None:
    """Returns how long the token in a mail works, or None if it has none. With OIDC_ONLY only staff undo links."""
    if not _MAILS[purpose].page or (settings.OIDC_ONLY and purpose in UNDOING):
        return None
    return _MAILS[purpose].lifetime


def queue_mail(
    purpose: Purpose,
    *,
    address: str,
    user_id: UUID | None,
    facts: Mapping[str, Any] | None = None,
) -> AccountMail | None:
    """Queues a mail. Returns None and queues nothing if the address got as many mails of this kind as it may in an hour
    or a day. The caller then answers as if the mail had been queued.
    """
    kind = _MAILS[purpose].counted_as
    if kind and settings.THROTTLES_ENABLED:
        rates = (MAILS_AN_HOUR, MAILS_A_DAY)
        counts = [(rate, count_hit(rate, f"{kind} {address}")[0]) for rate in rates]
        if any(hits > rate.limit for rate, hits in counts):
            return None
    return _write(purpose, address, user_id, facts, lifetime_of(purpose))


def hand_over(
    purpose: Purpose,
    *,
    address: str,
    user_id: UUID | None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[AccountMail, str]:
    """Writes the row of a mail that is never sent. Returns it with the link that the mail would have, which works for
    seven days. The caller shows the link only to the person who hands it over to the owner of the address.
    """
    status = AccountMail.Status.HANDED
    mail = _write(
        purpose, address, user_id, facts, INVITATION_LIFETIME, status=status, next_attempt_at=None
    )
    return mail, link_to(_MAILS[purpose].page, new_token(mail.id).value)


def _write(
    purpose: Purpose,
    address: str,
    user_id: UUID | None,
    facts: Mapping[str, Any] | None,
    lifetime: timedelta | None,
    **more: Any,
) -> AccountMail:
    mail_id = new_id()
    return AccountMail.objects.create(
        id=mail_id,
        host=mail_host(address),
        purpose=purpose,
        address=address,
        user_id=user_id,
        facts=dict(facts or {}),
        token_digest=new_token(mail_id).digest if lifetime else None,
        expires_at=Now() + lifetime if lifetime else None,
        **more,
    )


class LinkUnusable(Conflict):
    """409: the token of a mail is unknown, used, expired or void, or it is for another account or purpose."""

    def __init__(self) -> None:
        super().__init__(
            "This link does not work: it was used, is too old, or is for another account. Ask for a new mail.",
            code=ErrorCode.LINK_UNUSABLE,
        )


def find_mail(token: str, *purposes: Purpose) -> AccountMail:
    """Returns the mail if the token works for one of the purposes. Raises LinkUnusable. Until `use_up` has succeeded,
    another request may use the token up.
    """
    wanted = Q(token_digest=tokens.digest(token), purpose__in=purposes)
    found = _usable(wanted).first() if tokens.prefix_of(token) == _PREFIX else None
    if found is None:
        raise LinkUnusable
    return found


def has_live_mail(purpose: Purpose, **of: Any) -> bool:
    """Returns whether the token of such a mail, as one to this `address`, still works."""
    return _usable(Q(purpose=purpose, **of)).exists()


def use_up(mail: AccountMail) -> None:
    """Uses up a token. Raises LinkUnusable if another request used it first, or if it has expired or become void."""
    if not _usable(Q(id=mail.id)).update(ended_at=Now()):
        raise LinkUnusable


def make_void(of: Q) -> None:
    _usable(of).update(ended_at=Now())


def _usable(of: Q) -> QuerySet[AccountMail]:
    return AccountMail.objects.filter(
        of, token_digest__isnull=False, ended_at__isnull=True, expires_at__gt=Now()
    )


def link_to(page: str, token: str) -> str:
    """Returns the link. The token is in the fragment, which browsers send to no server and in no Referer header."""
    return f"{link_to_page(page)}#token={token}"


def new_token(mail_id: UUID, secret: str | None = None) -> tokens.Token:
    """Makes the token of a mail: an HMAC of the id of its row, so that the sender can make it and no table holds it."""
    key = secret or settings.SECRET_KEY
    code = salted_hmac("pipedai.account-mail", str(mail_id), secret=key, algorithm="sha256")
    return tokens.of_bytes(_PREFIX, code.digest())


def token_with_digest(mail_id: UUID, digest: bytes) -> str | None:
    """Makes the token again. Returns None if the service no longer has the secret under which it was made."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    made = (new_token(mail_id, secret) for secret in secrets)
    return next((token.value for token in made if token.digest == digest), None)


def _message(row: Row) -> Mail:
    """Makes the mail. Raises NeverSend for a token that would not work, or a new password without an account."""
    mails = _MAILS[row["purpose"]]
    if row["purpose"] == Purpose.RESET and row["user_id"] is None:
        raise NeverSend("no account has this e-mail address")
    # A mail that has no token, although there is a page for it, has no button either.
    unlinked = row["purpose"] == Purpose.UNLINK_NOTICE
    link = "" if mails.page else link_to_page("account" if unlinked else "password")
    if row["token_digest"] is not None:
        if row["ended_at"] is not None or row["expires_at"] <= row["claimed_at"]:
            raise NeverSend("its link would not work any more")
        token = token_with_digest(row["id"], bytes(row["token_digest"]))
        if token is None:
            raise NeverSend("its link was made with a SECRET_KEY that is gone")
        link = link_to(mails.page, token)
    return compose(
        f"accounts/{row['purpose']}",
        to=row["address"],
        subject=mails.subject,
        values=json.loads(row["facts"]),
        link=link,
        why=mails.why,
    )


ACCOUNT_MAILS = Kind("account_mail", AccountMail, AccountMailAttempt, _message)
