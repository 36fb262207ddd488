"""What is told of a worker that was silent and called again before a scheduler looked."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db.models import F
from django.db.models.functions import Now

from audit.models import AuditEntry
from notices.models import Incident, Notice
from notices.silence import find_offline_workers
from pipedai.sql import database_now
from testing.processes.racing import at_once
from testing.world.channels import add_channel
from triggers.models import Trigger, WebHeartbeat
from workers.models import Worker, WorkerSilence
from workspaces.models import Environment

HOUR = timedelta(hours=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
EVENTS = ["worker_offline", "worker_offline.recovered"]


class World:
    """The worker of a cast, to which an enabled trigger points, and a channel that tells of offline workers."""

    def __init__(self, cast):
        self.id, self.client = cast.worker.worker_id, cast.worker_client()
        self.workers = Worker.objects.filter(id=self.id)
        self.workers.update(last_seen_at=Now(), created_at=LONG_AGO)
        Trigger.objects.update(created_at=LONG_AGO)
        WebHeartbeat.objects.update(reachable_since=LONG_AGO)
        self.now = database_now()
        add_channel(cast, "webhook", events=EVENTS)

    def call(self):
        assert self.client.get(f"/api/v1/workers/{self.id}/poll").status_code == 200

    def silent_for(self, **time):
        """Lets the time since the worker's last call pass, and all that was noted lie so much further back."""
        by = timedelta(**time)
        WorkerSilence.objects.update(
            **{name: F(name) - by for name in ("last_seen_at", "offline_at", "ended_at")}
        )
        Incident.objects.update(opened_at=F("opened_at") - by, closed_at=F("closed_at") - by)
        self.workers.update(last_seen_at=F("last_seen_at") - by)

    def told(self):
        """Looks as two schedulers do. Returns how many notices told of beginnings, and how many of recoveries."""
        find_offline_workers()
        assert find_offline_workers() == 0
        assert not WorkerSilence.objects.exists()
        return tuple(Notice.objects.filter(event=event).count() for event in EVENTS)


@pytest.fixture
def world(cast):
    return World(cast)


def test_it_is_told_once_with_its_beginning_and_its_end(world):
    world.silent_for(minutes=30)
    (seen,) = world.workers.values_list("last_seen_at", flat=True)
    world.call()
    (back,) = world.workers.values_list("last_seen_at", flat=True)
    assert world.told() == (1, 1)
    incident = Incident.objects.get()
    assert incident.opened_at == seen + timedelta(minutes=10)
    assert incident.closed_at == back
    assert incident.remind_at is None
    assert incident.message.startswith("The machine did not call after ")
    assert incident.message.endswith(", before a scheduler noticed.")


def test_ten_minutes_are_no_silence(world):
    world.silent_for(minutes=9, seconds=50)
    world.call()
    assert world.told() == (0, 0)


def test_what_a_scheduler_noticed_is_not_told_again(world):
    world.silent_for(minutes=11)
    assert world.told() == (1, 0)
    world.silent_for(minutes=20)
    world.call()
    assert world.told() == (1, 1)
    world.silent_for(minutes=30)
    world.call()
    assert world.told() == (2, 2), "a later silence is told"


def test_a_silence_that_goes_on_is_told_beside_one_that_ended(world):
    world.silent_for(minutes=30)
    world.call()
    world.silent_for(minutes=11)
    assert world.told() == (2, 1)


def test_a_silence_is_told_although_a_later_one_was_noticed_before(world):
    world.silent_for(minutes=30)
    world.call()
    world.silent_for(minutes=11)
    # A scheduler that has as many other silences to tell as it takes at once leaves this one for later.
    (left,) = WorkerSilence.objects.all()
    WorkerSilence.objects.all().delete()
    find_offline_workers()
    left.save(force_insert=True)
    assert world.told() == (2, 1)


def test_several_silences_become_one_incident(world):
    for _ in range(3):
        world.silent_for(minutes=30)
        world.call()
    assert world.told() == (1, 1)
    incident = Incident.objects.get()
    assert ", and was silent 3 times until it called" in incident.message
    assert incident.closed_at is not None
    assert incident.closed_at - incident.opened_at > HOUR


def test_the_first_call_of_a_worker_ends_a_silence_too(world):
    world.workers.update(last_seen_at=None, created_at=world.now - HOUR)
    world.call()
    assert world.told() == (1, 1)
    assert Incident.objects.get().message.startswith("The machine had never called until it called")


def test_a_trigger_that_came_later_begins_it(world):
    Trigger.objects.update(created_at=world.now - timedelta(minutes=5))
    world.silent_for(hours=1)
    world.call()
    assert world.told() == (1, 1)
    assert Incident.objects.get().opened_at == world.now - timedelta(minutes=5)


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.workers.update(disabled_at=world.now),
        lambda world: Trigger.objects.update(enabled=False),
        lambda world: Trigger.objects.update(deleted_at=world.now),
        lambda world: Trigger.objects.update(worker_id=None),
        lambda world: WebHeartbeat.objects.update(reachable_since=world.now - timedelta(minutes=9)),
        lambda world: WebHeartbeat.objects.update(beat_at=LONG_AGO),
        lambda world: Environment.objects.update(paused_at=world.now),
    ],
    ids=["disabled", "no trigger", "deleted", "moved", "outage", "outage that goes on", "paused"],
)
def test_a_scheduler_would_not_have_told_it_either(world, change):
    world.silent_for(hours=1)
    change(world)
    world.call()
    assert not WorkerSilence.objects.exists()


def test_a_worker_that_was_disabled_since_is_not_told(world):
    world.silent_for(hours=1)
    world.call()
    world.workers.update(disabled_at=world.now)
    assert world.told() == (0, 0)


def test_calls_and_schedulers_at_once_tell_it_once(committed_cast):
    world = World(committed_cast)
    world.silent_for(hours=1)
    clients = [committed_cast.worker_client() for _ in range(4)]
    url = f"/api/v1/workers/{world.id}/poll"
    at_once(*(partial(client.get, url) for client in clients))
    assert WorkerSilence.objects.count() == 1
    at_once(*[find_offline_workers] * 3)
    assert world.told() == (1, 1)
    assert AuditEntry.objects.filter(action="incident.opened").count() == 1


def test_silences_between_which_the_clock_was_put_back_stop_no_scheduler(world):
    world.silent_for(hours=2)
    world.call()
    first = WorkerSilence.objects.get()
    WorkerSilence.objects.create(
        environment_id=first.environment_id,
        worker_id=first.worker_id,
        last_seen_at=first.last_seen_at,
        offline_at=first.offline_at - 3 * HOUR,
        ended_at=first.ended_at - 3 * HOUR,
    )
    assert world.told() == (1, 1)
    incident = Incident.objects.get()
    assert (incident.opened_at, incident.closed_at) == (first.offline_at, first.ended_at)
