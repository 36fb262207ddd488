"""POST /workers/:id/sign-off: what follows the worker's state follows at once, and a newer process wins."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from notices.models import Incident
from notices.silence import find_offline_pools, find_offline_workers
from pipedai.server.ticket import POLL, PollTicket, WorkerStreamTicket
from pipedai.sql import database_now
from testing.world.cast import bearer
from testing.world.pools import add_pool
from triggers.models import Run, Trigger
from workers import metrics
from workers.admin import worker_state
from workers.models import Worker, WorkerSilence
from workers.worker_events import read_events


class Process:
    """A process of the cast's worker. Without a name it sends no word for itself."""

    def __init__(self, cast, name=None):
        self._client = bearer(cast.worker.worker_token)
        self._path = f"/api/v1/workers/{cast.worker.worker_id}"
        self._headers = {"HTTP_X_PIPEDAI_WORKER_PROCESS": name} if name else {}

    def poll(self, **scope):
        extra: Any = {"asgi.scope": scope} if scope else {}
        response = self._client.get(f"{self._path}/poll", **self._headers, **extra)
        assert response.status_code == 200, response.json()

    def sign_off(self):
        response = self._client.post(f"{self._path}/sign-off", **self._headers)
        assert (response.status_code, response.content) == (204, b"")


def status(cast):
    answer = cast.client(cast.viewer).get(f"/api/v1/workers/{cast.worker.worker_id}")
    return answer.json()["status"]


def explained(cast):
    (run,) = Run.objects.all()
    return cast.client(cast.viewer).get(f"/api/v1/runs/{run.id}/explain").json()


def gauge(read, **labels):
    samples = [sample for metric in read() for sample in metric.samples if sample.labels == labels]
    return samples[0].value


def test_everything_follows_at_once(cast):
    pool_id = add_pool(cast, cast.worker.worker_id)
    Trigger.objects.filter(id=cast.trigger_id).update(pool_id=pool_id)
    process = Process(cast, "one")
    process.poll()
    cast.client(cast.owner).post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
    assert explained(cast)["waitingFor"] == []
    seen = Worker.objects.get(id=cast.worker.worker_id).last_seen_at
    process.sign_off()
    worker = Worker.objects.get(id=cast.worker.worker_id)
    assert worker.last_seen_at == seen
    assert status(cast) == worker_state(worker) == "offline"
    assert [reason["code"] for reason in explained(cast)["waitingFor"]] == ["worker_offline"]
    pool = cast.client(cast.viewer).get(f"/api/v1/pools/{pool_id}").json()
    assert pool["workers"] == {"total": 1, "online": 0, "free": 0}
    assert gauge(metrics.read_workers) == 0
    assert gauge(metrics.read_queue, worker="offline") == 1
    # A poll is noted only ten seconds after the last one.
    eleven = timedelta(seconds=11)
    Worker.objects.filter(id=worker.id).update(last_seen_at=F("last_seen_at") - eleven)
    process.poll()
    assert status(cast) == "offline", "a poll that was under way arrived late"
    Process(cast, "two").poll()
    assert status(cast) == "online"
    assert explained(cast)["waitingFor"] == []


@pytest.mark.parametrize("newer", ["two", None])
def test_a_newer_process_wins(cast, newer):
    old, new = Process(cast, "one"), Process(cast, newer)
    old.poll()
    new.poll()
    # The web process asks again for the poll of the old one, which waits.
    old.poll(**{POLL: PollTicket(cast.worker.worker_id, asked=2)})
    old.sign_off()
    assert status(cast) == "online"
    new.sign_off()
    assert status(cast) == "offline"


def test_a_program_without_a_word_for_its_process_comes_back_with_its_next_poll(cast):
    process = Process(cast)
    process.poll()
    process.sign_off()
    process.sign_off()
    assert status(cast) == "offline"
    process.poll()
    assert status(cast) == "online"


def test_the_streams_tell_that_it_stopped_and_started(cast):
    def news():
        return [
            row["type"]
            for row in read_events(ticket, worker_id=cast.worker.worker_id, last_event_id=None)
        ]

    ticket = WorkerStreamTicket()
    one = Process(cast, "one")
    one.poll()
    assert news() == []
    one.sign_off()
    one.sign_off()
    Worker.objects.update(last_seen_at=Now() - timedelta(minutes=5))
    assert news() == ["worker.stopped"]
    Process(cast, "two").poll()
    assert news() == ["worker.started"]


def test_other_workers_of_the_pool_may_take_its_runs_at_once(cast):
    other = cast.register("other")
    pool_id = add_pool(cast, cast.worker.worker_id, other.worker_id)
    Trigger.objects.filter(id=cast.trigger_id).update(pool_id=pool_id)
    Worker.objects.update(last_seen_at=Now())
    process = Process(cast, "one")
    process.poll()
    cast.client(cast.owner).post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
    poll = bearer(other.worker_token).get
    assert poll(f"/api/v1/workers/{other.worker_id}/poll").json()["runs"] == []
    process.sign_off()
    assert len(poll(f"/api/v1/workers/{other.worker_id}/poll").json()["runs"]) == 1


class TestIncidents:
    @pytest.fixture
    def pool_id(self, cast):
        pool_id = add_pool(cast, cast.worker.worker_id)
        cast.add_trigger(pool_id=pool_id)
        return pool_id

    def kinds(self, **later):
        now = database_now() + timedelta(**later)
        find_offline_workers(now=now)
        find_offline_pools(now=now)
        open_ones = Incident.objects.filter(closed_at=None).order_by("-kind")
        return list(open_ones.values_list("kind", flat=True))

    def test_people_are_told_of_a_stop_a_minute_later(self, cast, pool_id):
        process = Process(cast, "one")
        process.poll()
        process.sign_off()
        assert self.kinds(seconds=50) == [], "it may be started again"
        assert self.kinds(seconds=70) == ["worker_offline", "pool_offline"]
        message = Incident.objects.get(kind="worker_offline").message
        assert message.startswith("The machine signed off, and has not called since ")
        Process(cast, "two").poll()
        assert self.kinds() == []

    def test_nobody_is_told_of_a_restart(self, cast, pool_id):
        Process(cast, "one").poll()
        Process(cast, "one").sign_off()
        Process(cast, "two").poll()
        assert self.kinds(minutes=2) == []
        assert not WorkerSilence.objects.exists()

    def test_a_stop_that_no_scheduler_noticed_is_told_once(self, cast, pool_id):
        process = Process(cast, "one")
        process.poll()
        process.sign_off()
        past = Now() - timedelta(minutes=5)
        Trigger.objects.update(created_at=Now() - timedelta(days=1))
        Worker.objects.update(last_seen_at=past, signed_off_at=past)
        Process(cast, "two").poll()
        assert WorkerSilence.objects.count() == 1
        self.kinds()
        told = Incident.objects.get(kind="worker_offline")
        assert told.closed_at is not None
        assert told.opened_at < told.closed_at
