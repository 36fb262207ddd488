"""The stream of an environment tells which of its things have changed, to those who may see them."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.server.listen import MOST_THINGS, ThingsEar
from pipedai.server.ticket import STREAM, EnvironmentStreamTicket
from pipedai.sql import database_now
from pipedai.wakeups import Watches, watches
from testing.processes.worker_calls import WorkerCalls
from testing.world.connections import add_connection, add_oauth_connection, claim_due
from testing.world.events import add_source
from testing.world.incidents import open_incident
from testing.world.runs import Runs
from triggers import changes
from triggers.events.tests.test_receive import post
from triggers.models import EnvironmentWatch
from workers.models import Worker
from workspaces.connections.refreshing import ask, record


class Stream:
    """A stream of the cast's environment, as the web process would hold it. It has begun."""

    def __init__(self, cast, user=None):
        self.ticket = EnvironmentStreamTicket()
        self._client = cast.client(user or cast.viewer)
        self._url = f"/api/v1/environments/{cast.environment.id}/events/stream"
        assert self.news() == []

    def answer(self):
        self.ticket.more = False
        scope = {"asgi.scope": {STREAM: self.ticket}}
        return self._client.get(self._url, **scope)

    def news(self):
        answer = self.answer()
        assert answer.status_code == 200
        lines = answer.content.decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line]

    def hear(self, said):
        """Takes in what the database notified."""
        ear = ThingsEar()
        for payload in said:
            if payload.startswith("things"):
                _, _, kind, *ids = payload.split(" ")
                ear.hear_things(kind, [UUID(id_) for id_ in ids])
        ear.pour(self.ticket)
        said.clear()
        return self.news()


@pytest.fixture
def said(monkeypatch):
    """Returns what the database was told to notify. Everything is committed at once."""
    payloads: list[str] = []
    monkeypatch.setattr("pipedai.wakeups._notify", payloads.extend)
    monkeypatch.setattr("django.db.transaction.on_commit", lambda then, **_: then())
    return payloads


def things(said):
    return [payload for payload in said if payload.startswith("things")]


def test_nothing_is_said_where_nobody_listens(cast, said):
    Runs.of(cast).ended()
    assert things(said) == []


def test_a_run_and_its_worker_are_told_with_the_states_that_they_have_now(cast, said):
    stream = Stream(cast)
    watches.hear(str(cast.environment.id))
    runs = Runs.of(cast)
    run = runs.running()
    assert len(things(said)) == 3
    assert stream.hear(said) == [
        {"type": "run", "id": str(run), "status": "running"},
        {"type": "worker", "id": str(cast.worker.worker_id), "status": "busy"},
    ]
    assert stream.news() == []
    runs.complete(run)
    assert {"type": "run", "id": str(run), "status": "succeeded"} in stream.hear(said)


def test_incidents_are_told(cast, said):
    stream = Stream(cast)
    watches.hear(str(cast.environment.id))
    incident = open_incident(cast)
    assert {"type": "incident", "id": str(incident), "status": "open"} in stream.hear(said)


def test_an_approval_is_told_when_a_run_asks_when_somebody_decides_and_when_nobody_does(cast, said):
    runs = Runs.of(cast)
    stream = Stream(cast)
    said.clear()
    watches.hear(str(cast.environment.id))
    run = runs.waiting()
    asked = {"type": "approval", "id": str(runs.approval_of(run)["id"]), "status": "pending"}
    assert asked in stream.hear(said)
    runs.decide(run)
    told = stream.hear(said)
    assert {**asked, "status": "approved"} in told
    assert {"type": "run", "id": str(run), "status": "queued"} in told
    other = runs.waiting()
    stream.hear(said)
    asked["id"] = str(runs.approval_of(other)["id"])
    runs.cancel(other)
    assert {**asked, "status": "withdrawn"} in stream.hear(said)


def test_connections_are_told(cast, said):
    stream = Stream(cast)
    watches.hear(str(cast.environment.id))
    connection = add_connection(cast)
    assert {"type": "connection", "id": str(connection), "status": "connected"} in stream.hear(said)


def test_a_connection_that_fails_is_told(cast, said, receiver):
    stream = Stream(cast)
    watches.hear(str(cast.environment.id))
    past = database_now() - timedelta(seconds=1)
    columns = {"token_endpoint": receiver.url("/token"), "failures": 2, "refresh_at": past}
    connection = add_oauth_connection(cast, **columns)
    receiver.answer(503)
    claim = claim_due()
    assert claim is not None
    record(claim, ask(claim))
    assert stream.hear(said) == [
        {"type": "connection", "id": str(connection.id), "status": "failing"}
    ]


def test_what_is_gone_is_told_as_deleted(cast):
    stream = Stream(cast)
    gone = new_id()
    stream.ticket.changed = {("worker", gone)}
    assert stream.news() == [{"type": "worker", "id": str(gone), "status": "deleted"}]


def test_another_tenants_thing_is_never_told(cast):
    stream = Stream(cast, cast.owner)
    stream.ticket.changed = {("run", cast.strange_environment.id)}
    assert [each["status"] for each in stream.news()] == ["deleted"]


def test_a_worker_that_falls_silent_comes_back_or_signs_off_is_told(cast, said):
    WorkerCalls(cast.worker).poll()
    stream = Stream(cast)
    watches.hear(str(cast.environment.id))
    stream.ticket.asked_at = database_now() - timedelta(seconds=12)
    worker = Worker.objects.filter(id=cast.worker.worker_id)
    worker.update(last_seen_at=Now() - timedelta(seconds=185))
    told = {"type": "worker", "id": str(cast.worker.worker_id)}
    assert stream.news() == [{**told, "status": "offline"}]
    assert stream.news() == []
    WorkerCalls(cast.worker).poll()
    assert stream.hear(said) == [{**told, "status": "online"}]
    assert WorkerCalls(cast.worker).sign_off().status_code == 204
    assert stream.hear(said) == [{**told, "status": "offline"}]
    stream.ticket.asked_at = database_now() - timedelta(seconds=12)
    worker.update(last_seen_at=Now() - timedelta(seconds=185))
    assert stream.news() == [], "it was told already"


def test_many_changes_come_in_pieces_and_too_many_are_told_as_all(cast, monkeypatch):
    monkeypatch.setattr(changes, "PIECE", 2)
    stream = Stream(cast)
    stream.ticket.changed = {("run", new_id()) for _ in range(3)}
    assert (len(stream.news()), stream.ticket.more) == (2, True)
    assert (len(stream.news()), stream.ticket.more) == (1, False)
    ear = ThingsEar()
    ear.hear_things("run", [new_id() for _ in range(MOST_THINGS + 1)])
    ear.pour(stream.ticket)
    assert stream.news() == [{"type": "all"}]
    assert stream.news() == []


def test_lost_notifications_are_told_as_all(cast):
    stream = Stream(cast)
    ear = ThingsEar()
    ear.hear_again()
    ear.pour(stream.ticket)
    assert stream.news() == [{"type": "all"}]


def test_a_stream_announces_its_environment_to_all_processes(cast, said):
    stream = Stream(cast)
    assert said == [f"watched {cast.environment.id}"]
    assert stream.ticket.opening_seconds > 1
    stream.news()
    assert len(said) == 1
    assert EnvironmentWatch.objects.count() == 1
    changes.read_watches()
    assert watches.is_watched(cast.environment.id)
    assert not watches.is_watched(cast.strange_environment.id)


def test_a_process_that_hears_nothing_counts_all_as_watched():
    some = Watches()
    assert not some.is_watched("a")
    some.hear_nothing()
    assert some.is_watched("a")
    some.learn()
    assert some.is_watched("a")


def test_a_stranger_sees_no_stream(cast):
    url = f"/api/v1/environments/{cast.environment.id}/events/stream"
    assert cast.client(cast.stranger).get(url).status_code == 404


def test_a_source_is_told_when_something_comes_and_when_a_request_is_refused(cast, said):
    source_id = add_source(cast)
    stream = Stream(cast)
    said.clear()
    watches.hear(str(cast.environment.id))
    told = {"type": "source", "id": str(source_id), "status": "enabled"}
    assert post(source_id).status_code == 202
    assert told in stream.hear(said)
    assert post(source_id, headers={}).status_code == 401
    assert stream.hear(said) == [told]
    cast.client(cast.admin).patch(f"/api/v1/sources/{source_id}", {"enabled": False})
    assert stream.hear(said) == [{**told, "status": "disabled"}]
