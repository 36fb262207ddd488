"""Writes the mails about accounts into their outbox, in the transaction of their cause (SPEC §15)."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models.functions import Now

from accounts.mail.tokens import new_token
from accounts.models import AccountMail
from accounts.throttles import MAILS_A_DAY, MAILS_AN_HOUR
from pipedai.api.throttling import count_hit
from pipedai.ids import new_id
from pipedai.outgoing import mail_host

# How long the token of each purpose works (SPEC §15). A mail whose purpose is not listed has no token.
LIFETIMES: Mapping[str, timedelta] = MappingProxyType(
    {
        AccountMail.Purpose.VERIFY: timedelta(hours=24),
        AccountMail.Purpose.CHANGE: timedelta(hours=24),
        AccountMail.Purpose.RESET: timedelta(hours=1),
        AccountMail.Purpose.REGISTRATION: timedelta(hours=24),
        AccountMail.Purpose.INVITATION: timedelta(days=7),
    }
)

# Groups the purposes of mails into kinds, each with its own limit for an address. With one limit for all, somebody who
# causes many invitations or confirmations could keep away the mail by which the owner of an address gets a new password
# or takes the address back. A purpose that is not listed has no limit, because its mails warn the owner of an account.
_COUNTED_AS: Mapping[str, str] = MappingProxyType(
    {
        AccountMail.Purpose.VERIFY: "confirmation",
        AccountMail.Purpose.CHANGE: "confirmation",
        AccountMail.Purpose.RESET: "recovery",
        AccountMail.Purpose.REGISTRATION: "recovery",
        AccountMail.Purpose.INVITATION: "invitation",
    }
)


def queue_mail(
    purpose: AccountMail.Purpose,
    *,
    address: str,
    user_id: UUID | None,
    facts: Mapping[str, Any] | None = None,
) -> AccountMail | None:
    """Writes a mail into the outbox and returns its row; the scheduler sends it. Returns None and writes nothing if the
    address has had as many mails of this kind as it may in an hour or a day. The caller then answers as if the mail
    were written.
    """
    if not _may_have_another(purpose, address):
        return None
    mail_id = new_id()
    lifetime = LIFETIMES.get(purpose)
    return AccountMail.objects.create(
        id=mail_id,
        host=mail_host(address),
        purpose=purpose,
        address=address,
        user_id=user_id,
        facts=dict(facts or {}),
        token_digest=new_token(mail_id).digest if lifetime else None,
        expires_at=Now() + lifetime if lifetime else None,
    )


def _may_have_another(purpose: AccountMail.Purpose, address: str) -> bool:
    kind = _COUNTED_AS.get(purpose)
    if kind is None or not settings.THROTTLES_ENABLED:
        return True
    rates = (MAILS_AN_HOUR, MAILS_A_DAY)
    counts = [(rate, count_hit(rate, f"{kind} {address}")[0]) for rate in rates]
    return all(hits <= rate.limit for rate, hits in counts)
