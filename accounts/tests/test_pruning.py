"""Sessions are deleted some time after they have expired."""

from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import Session
from accounts.ready import prune_sessions
from audit.models import AuditEntry
from pipedai.retention import Order
from testing.world.users import UserFactory

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


def removed(**options):
    order = Order(NOW - timedelta(days=30), limit=2, **options)
    return sum(batch.removed for batch in prune_sessions(order))


def test_those_that_expired_before_go_whether_revoked_or_not():
    user = UserFactory.create()
    old, young = NOW - timedelta(days=30, seconds=1), NOW - timedelta(days=30)
    for expires_at in [old] * 5 + [young] * 2:
        Session.objects.create(user=user, expires_at=expires_at)
    Session.objects.filter(id=Session.objects.latest("id").id).update(revoked_at=NOW)
    before = AuditEntry.objects.count()

    assert removed(dry_run=True) == 5
    assert Session.objects.count() == 7
    assert removed() == 5
    assert set(Session.objects.values_list("expires_at", flat=True)) == {young}
    assert AuditEntry.objects.count() == before
