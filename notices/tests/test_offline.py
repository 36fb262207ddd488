"""Which workers are told to be offline. The clock is passed in."""

from datetime import UTC, datetime, timedelta

import pytest

from audit.models import AuditEntry
from notices.models import Incident
from notices.silence import find_offline_workers
from triggers.models import Trigger, WebHeartbeat
from workers.models import Worker

NOON = datetime(2100, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def worker(cast):
    """Returns the rows with the cast's worker, to which an enabled trigger points, and which was seen at noon."""
    rows = Worker.objects.filter(id=cast.worker.worker_id)
    rows.update(last_seen_at=NOON)
    return rows


def found(**after_noon):
    """Looks as the scheduler does. Returns the number of open incidents."""
    find_offline_workers(now=NOON + timedelta(**after_noon))
    return Incident.objects.filter(kind="worker_offline", closed_at__isnull=True).count()


def ends():
    return [
        row.metadata["recovered"] for row in AuditEntry.objects.filter(action="incident.closed")
    ]


def test_after_ten_minutes_of_silence_it_is_told_once(cast, worker):
    assert found(minutes=10) == 0
    assert found(minutes=10, seconds=1) == 1
    assert found(minutes=30) == 1
    incident = Incident.objects.get()
    assert (incident.subject_type, incident.subject_id) == ("worker", cast.worker.worker_id)
    assert incident.message == "The machine has not called since Mon 1 Mar 2100, 12:00 UTC."


def test_a_worker_that_never_called_is_told_too(worker):
    worker.update(last_seen_at=None, created_at=NOON)
    assert found(minutes=11) == 1
    assert Incident.objects.get().message == "The machine has never called."


def test_a_worker_that_calls_again_has_recovered(worker):
    assert found(minutes=11) == 1
    worker.update(last_seen_at=NOON + timedelta(minutes=12))
    assert found(minutes=12) == 0
    assert ends() == [True]
    assert found(minutes=23) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda worker: worker.update(disabled_at=NOON),
        lambda worker: worker.update(deleted_at=NOON, token_digest=None),
        lambda worker: Trigger.objects.update(enabled=False),
        lambda worker: Trigger.objects.update(deleted_at=NOON),
        lambda worker: Trigger.objects.update(worker_id=None),
    ],
)
def test_a_worker_that_nobody_needs_is_not_told_and_closes_without_a_word(worker, change):
    assert found(minutes=11) == 1
    change(worker)
    assert found(minutes=12) == 0
    assert ends() == [False]
    assert found(minutes=30) == 0


def test_after_an_outage_of_ours_workers_get_ten_minutes_more(worker):
    WebHeartbeat.objects.update(beat_at=datetime(2000, 1, 1, tzinfo=UTC))
    assert found(hours=1) == 0, "the service is away"
    now = datetime.now(UTC)
    WebHeartbeat.objects.update(beat_at=now + timedelta(hours=1), reachable_since=now)
    assert found(hours=1) == 0, "the service is back"
    WebHeartbeat.objects.update(reachable_since=now - timedelta(minutes=11))
    assert found(hours=1) == 1


def test_many_are_told_in_turns(cast, worker):
    for n in range(3):
        registered = cast.register(f"host-more-{n}")
        cast.add_trigger(worker_id=registered.worker_id)
    Worker.objects.update(last_seen_at=NOON)
    later = NOON + timedelta(minutes=11)
    counts = [find_offline_workers(limit=3, now=later) for _ in range(3)]
    assert counts == [3, 1, 0]
