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
from pipedai.outgoing import MAIL_HOST

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


def queue_mail(
    purpose: AccountMail.Purpose,
    *,
    address: str,
    user_id: UUID | None,
    facts: Mapping[str, Any] | None = None,
) -> AccountMail | None:
    """Writes a mail, which the scheduler sends. Returns None if the address has had as many mails as it may in an hour
    or a day: then nothing is written, and the caller answers as if it were.
    """
    if not _may_have_another(address):
        return None
    mail_id = new_id()
    lifetime = LIFETIMES.get(purpose)
    return AccountMail.objects.create(
        id=mail_id,
        host=MAIL_HOST,
        purpose=purpose,
        address=address,
        user_id=user_id,
        facts=dict(facts or {}),
        token_digest=new_token(mail_id).digest if lifetime else None,
        expires_at=Now() + lifetime if lifetime else None,
    )


def _may_have_another(address: str) -> bool:
    if not settings.THROTTLES_ENABLED:
        return True
    counts = [(rate, count_hit(rate, address)[0]) for rate in (MAILS_AN_HOUR, MAILS_A_DAY)]
    return all(hits <= rate.limit for rate, hits in counts)
