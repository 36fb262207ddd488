"""Deletes sessions of the API and of Django admin that expired long ago, and old mails about accounts."""

from collections.abc import Iterator

from django.db import transaction

from accounts.models import AccountMail
from pipedai.retention import Batch, Order, count_or_remove, until_short

_COUNT = "SELECT count(*) AS n FROM session WHERE expires_at < %(before)s"
_REMOVE = """
WITH old AS MATERIALIZED (
    SELECT id FROM session WHERE expires_at < %(before)s
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM session s USING old WHERE s.id = old.id
"""


def prune_sessions(order: Order) -> Iterator[Batch]:
    """Deletes the rows of sessions that expired before `order.before`. It writes no audit row, since an expired session
    permits nothing any more.
    """
    yield from count_or_remove(order, count=_COUNT, remove=_REMOVE)


def prune_account_mails(order: Order) -> Iterator[Batch]:
    """Deletes mails about accounts that were queued before `order.before`, with their attempts and invitations. It
    deletes no mail that waits to be sent or whose token still works. It writes no audit row.
    """
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
