"""Which pools are told to be offline. The clock is passed in."""

from datetime import UTC, datetime, timedelta

import pytest

from audit.models import AuditEntry
from notices.models import Incident
from notices.silence import find_offline_pools, find_offline_workers
from testing.world.pools import add_pool
from triggers.models import Trigger
from workers.models import Pool, PoolMember, Worker
from workspaces.models import Environment

NOON = datetime(2100, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def members(cast):
    """Returns the rows of a pool's two workers, seen at noon. Only a trigger with that pool is enabled."""
    ids = [cast.worker.worker_id, cast.register("two").worker_id]
    pool_id = add_pool(cast, *ids, name="linux")
    Trigger.objects.update(enabled=False)
    cast.add_trigger(worker_id=None, pool_id=pool_id)
    Pool.objects.update(created_at=NOON)
    rows = Worker.objects.filter(id__in=ids)
    rows.update(last_seen_at=NOON)
    return rows


def found(**after_noon):
    """Looks as the scheduler does. Returns the messages of the open incidents."""
    now = NOON + timedelta(**after_noon)
    find_offline_workers(now=now)
    find_offline_pools(now=now)
    rows = Incident.objects.filter(closed_at__isnull=True).order_by("kind")
    return list(rows.values_list("kind", "message"))


AWAY = [("pool_offline", "No machine of the pool has called since Mon 1 Mar 2100, 12:00 UTC.")]


def test_a_pool_is_told_when_all_its_workers_are_away_and_when_one_is_back(members):
    assert found(minutes=10) == []
    assert found(minutes=11) == AWAY, "and its machines are not told one by one"
    assert found(minutes=12) == AWAY
    Worker.objects.filter(id=members.first().id).update(last_seen_at=NOON + timedelta(minutes=13))
    assert found(minutes=13) == []
    assert AuditEntry.objects.get(action="incident.closed").metadata["recovered"] is True


def test_a_pool_without_workers_is_told(members):
    PoolMember.objects.all().delete()
    assert found(minutes=11) == [("pool_offline", "The pool has no machines.")]


def test_one_worker_that_is_there_is_enough(members):
    Worker.objects.filter(id=members.first().id).update(last_seen_at=NOON + timedelta(minutes=9))
    assert found(minutes=11) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda: Trigger.objects.update(enabled=False),
        lambda: Environment.objects.update(paused_at=NOON),
        lambda: Worker.objects.update(disabled_at=NOON),
    ],
)
def test_nobody_is_told_of_a_pool_that_is_not_needed(members, change):
    assert found(minutes=11) == AWAY
    change()
    assert found(minutes=12) == []
    assert AuditEntry.objects.get(action="incident.closed").metadata["recovered"] is False
