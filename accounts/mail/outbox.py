"""The outbox of the mails about accounts: queues them in the transaction of their cause, and makes their texts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models.functions import Now

from accounts.mail import tokens
from accounts.models import AccountMail, AccountMailAttempt
from accounts.throttles import MAILS_A_DAY, MAILS_AN_HOUR
from pipedai.api.throttling import count_hit
from pipedai.ids import new_id
from pipedai.links import link_to_page
from pipedai.outgoing import Kind, Mail, NeverSend, compose, mail_host
from pipedai.sql import Row

# How long the tokens of invitations work, and those of all links that somebody hands over.
INVITATION_LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class _Mails:
    # The subject and `why` may contain names of facts in braces. The values of the facts replace them.
    subject: str
    why: str
    # The page to which the mail's link leads, and how long the token in it works. A mail without one has no token, and
    # leads to where the owner of an account changes the password.
    page: str = ""
    lifetime: timedelta = timedelta(hours=24)
    # Mails with the same word here share the limits for an address. With one limit for all, somebody who causes many
    # invitations or confirmations could keep away the mail by which the owner of an address gets a new password or
    # takes the address back. Mails that warn the owner of an account have no limit.
    counted_as: str = ""


_MAILS: Mapping[str, _Mails] = MappingProxyType(
    {
        AccountMail.Purpose.VERIFY: _Mails(
            "Confirm your e-mail address",
            "You get this mail because somebody registered at PipedAI with this address.",
            page="verify",
            counted_as="confirmation",
        ),
        AccountMail.Purpose.CHANGE: _Mails(
            "Confirm your new e-mail address",
            "You get this mail because somebody wants to use this address for their PipedAI account.",
            page="verify",
            counted_as="confirmation",
        ),
        AccountMail.Purpose.CHANGE_NOTICE: _Mails(
            "Your e-mail address is about to change",
            "You get this mail because a PipedAI account has this address.",
        ),
        AccountMail.Purpose.RESET: _Mails(
            "Set a new password",
            "You get this mail because somebody asked for a new password for this address at PipedAI.",
            page="reset",
            lifetime=timedelta(hours=1),
            counted_as="recovery",
        ),
        AccountMail.Purpose.REGISTRATION: _Mails(
            "Your e-mail address at PipedAI",
            "You get this mail because somebody wants to register at PipedAI with this address.",
            page="register",
            counted_as="recovery",
        ),
        AccountMail.Purpose.INVITATION: _Mails(
            "An invitation to {environment}",
            "You get this mail because a user of PipedAI entered this address.",
            page="invitation",
            lifetime=INVITATION_LIFETIME,
            counted_as="invitation",
        ),
    }
)


def lifetime_of(purpose: AccountMail.Purpose) -> timedelta | None:
    return _MAILS[purpose].lifetime if _MAILS[purpose].page else None


def queue_mail(
    purpose: AccountMail.Purpose,
    *,
    address: str,
    user_id: UUID | None,
    facts: Mapping[str, Any] | None = None,
) -> AccountMail | None:
    """Returns None and writes nothing if the address has got all mails of this kind that it may get in an hour or a
    day. The caller then answers as if the mail had been written.
    """
    if not _may_have_another(purpose, address):
        return None
    return _write(purpose, address, user_id, facts, lifetime_of(purpose))


def hand_over(
    purpose: AccountMail.Purpose,
    *,
    address: str,
    user_id: UUID | None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[AccountMail, str]:
    """Writes the row of a mail that is never sent. Returns it with the link that the mail would have, which works for
    seven days. The caller shows the link to whoever hands it over to the owner of the address, and to nobody else.
    """
    status = AccountMail.Status.HANDED
    mail = _write(
        purpose, address, user_id, facts, INVITATION_LIFETIME, status=status, next_attempt_at=None
    )
    return mail, tokens.link_to(_MAILS[purpose].page, tokens.new_token(mail.id).value)


def _write(
    purpose: AccountMail.Purpose,
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
        token_digest=tokens.new_token(mail_id).digest if lifetime else None,
        expires_at=Now() + lifetime if lifetime else None,
        **more,
    )


def _may_have_another(purpose: AccountMail.Purpose, address: str) -> bool:
    kind = _MAILS[purpose].counted_as
    if not kind or not settings.THROTTLES_ENABLED:
        return True
    rates = (MAILS_AN_HOUR, MAILS_A_DAY)
    counts = [(rate, count_hit(rate, f"{kind} {address}")[0]) for rate in rates]
    return all(hits <= rate.limit for rate, hits in counts)


def _message(row: Row) -> Mail:
    """Raises NeverSend if the mail's token would not work, or if nobody has the address that needs a new password."""
    mails = _MAILS[row["purpose"]]
    if row["purpose"] == AccountMail.Purpose.RESET and row["user_id"] is None:
        raise NeverSend("no account has this address")
    link = link_to_page("password")
    if mails.page:
        if row["ended_at"] is not None or row["expires_at"] <= row["claimed_at"]:
            raise NeverSend("its link would not work any more")
        token = tokens.token_with_digest(row["id"], bytes(row["token_digest"]))
        if token is None:
            raise NeverSend("its link was made with a SECRET_KEY that is gone")
        link = tokens.link_to(mails.page, token)
    return compose(
        f"accounts/{row['purpose']}",
        to=row["address"],
        subject=mails.subject,
        values=json.loads(row["facts"]),
        link=link,
        why=mails.why,
    )


ACCOUNT_MAILS = Kind("account_mail", AccountMail, AccountMailAttempt, _message)
