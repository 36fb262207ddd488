"""Events of workers are recorded for those who stream them, and are read back in the right order."""

import json
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from pipedai.server.ticket import WorkerStreamTicket
from pipedai.sql import database_now
from testing.processes.racing import Started
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import TEST_ACTOR
from triggers.runs import lifecycle
from workers.models import Worker, WorkerEvent
from workers.services import revoke_token, update_worker
from workers.worker_events import read_events


class Stream:
    """A stream of the cast's worker. `news()` returns the events that the web process would send now."""

    def __init__(self, cast, last_event_id=None):
        self._worker_id = cast.worker.worker_id
        self._last_event_id = last_event_id
        self._ticket = WorkerStreamTicket()

    def rows(self):
        return read_events(
            self._ticket, worker_id=self._worker_id, last_event_id=self._last_event_id
        )

    def news(self):
        return [row["type"] for row in self.rows()]


@pytest.fixture
def run(cast):
    """Queues a run of the cast's worker and returns its id."""
    answer = cast.client(cast.owner).post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
    return answer.json()["id"]


def _worker(cast):
    return Worker.objects.get(id=cast.worker.worker_id)


def _change(cast, **values):
    update_worker(worker=_worker(cast), values=values, actor=TEST_ACTOR)


def test_nothing_is_recorded_of_a_worker_that_nobody_watches(cast, run):
    calls = WorkerCalls(cast.worker)
    assert calls.poll().status_code == calls.claim(run).status_code == 200
    _change(cast, max_concurrency=2)
    assert not WorkerEvent.objects.exists()


def test_a_stream_tells_of_the_worker_and_its_runs_in_order(cast, run):
    stream, calls = Stream(cast), WorkerCalls(cast.worker)
    assert stream.news() == []
    calls.poll()
    calls.claim(run)
    calls.start(run)
    assert stream.news() == ["worker.started", "run.claimed", "run.started"]
    cast.client(cast.owner).post(f"/api/v1/runs/{run}/cancel")
    calls.complete(run, status="canceled")
    _change(cast, max_concurrency=2)
    rows = stream.rows()
    assert [row["type"] for row in rows] == [
        "run.cancel-requested",
        "run.canceled",
        "concurrency.changed",
    ]
    assert json.loads(rows[1]["data"]) == {
        "runId": run,
        "triggerId": str(cast.trigger_id),
        "status": "canceled",
    }
    assert json.loads(rows[2]["data"]) == {"maxConcurrency": 2}
    assert stream.news() == []


def test_a_claim_that_starts_the_run_tells_of_each_move_to_its_own_status(cast, run):
    stream = Stream(cast)
    stream.rows()
    WorkerCalls(cast.worker).claim(run, start=True)
    moves = [(row["type"], json.loads(row["data"])["status"]) for row in stream.rows()]
    assert moves == [("run.claimed", "claimed"), ("run.started", "running")]


def test_what_the_server_ends_is_told_too(cast, run):
    stream, calls = Stream(cast), WorkerCalls(cast.worker)
    stream.news()
    calls.claim(run)
    lifecycle.expire_runs(now=database_now() + timedelta(hours=1))
    assert stream.news() == ["run.claimed", "run.lost"]


def test_a_change_of_something_else_is_nothing_to_a_stream(cast):
    stream = Stream(cast)
    stream.news()
    _change(cast, label="New", disabled=True)
    assert stream.news() == []


def test_what_is_rolled_back_was_never_told(cast):
    stream = Stream(cast)
    stream.news()
    with transaction.atomic():
        _change(cast, max_concurrency=2)
        transaction.set_rollback(True)
    assert stream.news() == []


def _events(cast):
    return [event.id for event in WorkerEvent.objects.filter(worker=_worker(cast)).order_by("id")]


def test_whoever_comes_back_is_told_what_they_missed(cast):
    Stream(cast).news()
    for n in (2, 3, 4):
        _change(cast, max_concurrency=n)
    first, *missed = _events(cast)
    rows = Stream(cast, last_event_id=str(first)).rows()
    assert [row["id"] for row in rows] == missed
    assert Stream(cast).news() == []


@pytest.mark.parametrize("sent", ["", "x", "-1", "1" * 19, "１"])
def test_an_id_that_is_none_begins_now(cast, sent):
    Stream(cast).news()
    _change(cast, max_concurrency=2)
    assert Stream(cast, last_event_id=sent).news() == []


def test_what_is_older_than_an_hour_is_not_told_again(cast):
    Stream(cast).news()
    _change(cast, max_concurrency=2)
    WorkerEvent.objects.update(at=F("at") - timedelta(minutes=61))
    _change(cast, max_concurrency=3)
    assert Stream(cast, last_event_id="0").news() == ["concurrency.changed"]


def test_whoever_comes_back_after_hours_is_told_the_last_one_without_a_gap(cast):
    Stream(cast).news()
    _change(cast, max_concurrency=2)
    (last_read,) = _events(cast)
    WorkerEvent.objects.update(at=F("at") - timedelta(hours=3))
    _change(cast, max_concurrency=3)
    rows = Stream(cast, last_event_id=str(last_read)).rows()
    assert [json.loads(row["data"])["maxConcurrency"] for row in rows] == [3]


def test_a_long_backlog_comes_in_pieces(cast, monkeypatch):
    monkeypatch.setattr("workers.worker_events.PIECE", 2)
    stream = Stream(cast)
    stream.news()
    for n in range(2, 7):
        _change(cast, max_concurrency=n)
    assert [len(stream.news()) for _ in range(4)] == [2, 2, 1, 0]


def _silent_for(cast, seconds):
    Worker.objects.filter(id=cast.worker.worker_id).update(
        last_seen_at=Now() - timedelta(seconds=seconds)
    )


def test_silence_is_told_once_by_whoever_notices_it(cast):
    one, other = Stream(cast), Stream(cast)
    WorkerCalls(cast.worker).poll()
    assert one.news() == other.news() == []
    _silent_for(cast, 100)
    assert one.news() == other.news() == ["poll.error"]
    assert one.news() == other.news() == []


def test_a_worker_that_is_gone_is_told_to_have_stopped_and_to_have_started(cast):
    stream = Stream(cast)
    stream.news()
    _silent_for(cast, 200)
    assert stream.news() == ["poll.error", "worker.stopped"]
    WorkerCalls(cast.worker).poll()
    assert stream.news() == ["worker.started"]
    _silent_for(cast, 100)
    WorkerCalls(cast.worker).poll()
    assert stream.news() == ["poll.recovered"]


def test_what_was_silent_before_is_no_news(cast):
    _silent_for(cast, 1000)
    assert Stream(cast).news() == []


def test_a_dead_token_stops_the_worker(cast):
    stream = Stream(cast)
    stream.news()
    revoke_token(worker=_worker(cast), actor=TEST_ACTOR)
    assert stream.news() == ["worker.stopped"]


@contextmanager
def _first_commits_last(cast):
    """Writes two events, of which the first commits at the end of the block. Yields the id of the second."""

    def write(type_):
        return WorkerEvent.objects.create(
            environment=cast.environment, worker=_worker(cast), type=type_, data={}
        ).id

    with transaction.atomic():
        write("first")
        yield Started(lambda: write("second")).answer()


def test_what_commits_after_an_event_with_a_larger_id_is_not_lost(committed_cast):
    stream = Stream(committed_cast)
    stream.news()
    with _first_commits_last(committed_cast):
        seen_elsewhere = Started(stream.news)
        assert seen_elsewhere.answer() == ["second"]
    assert stream.news() == ["first"]
    assert stream.news() == []


@pytest.mark.parametrize("comes_back", [False, True])
def test_what_commits_after_a_stream_began_is_told_despite_its_smaller_id(
    committed_cast, comes_back
):
    Stream(committed_cast).news()
    with _first_commits_last(committed_cast) as second:
        stream = Stream(committed_cast, last_event_id=str(second) if comes_back else None)
        assert Started(stream.news).answer() == []
    assert stream.news() == ["first"]
    assert stream.news() == []
