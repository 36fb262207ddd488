"""What the app adds to the service: its mails, a job, and how long its rows are kept."""

from collections.abc import Iterator

from django.db import transaction

from accounts import issuer
from accounts.authenticators import rewrap_authenticators
from accounts.issuer_probe import issuer_lets_us_in
from accounts.mails import ACCOUNT_MAILS
from accounts.models import AccountMail
from pipedai.checks import register_probe
from pipedai.loop import Job, register_job
from pipedai.outgoing import register_kind
from pipedai.retention import (
    Batch,
    Order,
    Retention,
    register_retention,
    rows_where,
    until_short,
)

# The row of a session is kept for at least 30 days after the session's end. The throttles that limit logins read in
# these rows from which IP addresses a user has logged in.
_SESSIONS_KNOWN_DAYS = 30
# The longest time for which the token of a mail works, that of an invitation, and how long mails are kept.
_TOKENS_WORK_DAYS = 7
_MAILS_KEPT_DAYS = 30

# Pruning sessions writes no audit row, because an expired session permits nothing any more.
prune_sessions = rows_where("session", "t.expires_at < %(before)s", by="t.expires_at")


def prune_account_mails(order: Order) -> Iterator[Batch]:
    """Deletes mails queued before `order.before`, unless they wait to be sent or have a working token."""
    old = AccountMail.objects.filter(created_at__lt=order.before)
    if order.dry_run:
        count = old.count()
        yield Batch(count, count)
        return

    def remove() -> int:
        with transaction.atomic():
            locked = old.select_for_update(skip_locked=True).order_by("created_at")
            ids = list(locked.values_list("id", flat=True)[: order.limit])
            AccountMail.objects.filter(id__in=ids).delete()
        return len(ids)

    yield from until_short(remove, order.limit)


register_kind(ACCOUNT_MAILS)
if issuer.is_on():
    register_probe("sign-in", issuer_lets_us_in, needs_database=False)
register_job(Job("rewrap-authenticators", every_seconds=60.0, work=rewrap_authenticators))
register_retention(
    Retention(
        "sessions",
        "sessions, of the API and of admin, that have expired",
        lambda: _SESSIONS_KNOWN_DAYS,
        prune_sessions,
        at_least=_SESSIONS_KNOWN_DAYS,
    ),
    Retention(
        "account-mails",
        "mails about accounts, with their attempts, and the invitations in them",
        lambda: _MAILS_KEPT_DAYS,
        prune_account_mails,
        at_least=_TOKENS_WORK_DAYS + 1,
    ),
)
