"""The events of a run are read from a number on, in pages and by streams."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models.functions import Now

from pipedai.server.ticket import STREAM, StreamTicket
from pipedai.sql import database_now
from pipedai.wakeups import watches
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from triggers.models import Run, RunEventBatch, Trigger
from triggers.run_events import reading
from triggers.run_events.reading import page_of_events


@pytest.fixture
def runs(runs):
    Trigger.objects.filter(id=runs.trigger_id).update(record_events="always")
    runs.now = database_now()
    return runs


@pytest.fixture
def run(runs):
    return runs.running()


@pytest.fixture
def calls(cast):
    return WorkerCalls(cast.worker)


@pytest.fixture
def read(cast, run):
    """Reads a page, and returns the numbers of its events and `lastSeq`."""
    client = cast.client(cast.operator)

    def page(**query):
        answer = client.get(f"/api/v1/runs/{run}/events", query)
        assert answer["Content-Type"] == "application/json"
        shown = json.loads(answer.content)
        return [event["seq"] for event in shown["items"]], shown["lastSeq"]

    return page


def test_a_run_without_events_has_none(read):
    assert read() == ([], 0)


def test_a_run_without_events_says_why_and_how_the_next_has_some(cast, runs, calls, subtests):
    def why(run: UUID) -> str | None:
        answer = cast.client(cast.operator).get(f"/api/v1/runs/{run}/events")
        said: str | None = json.loads(answer.content)["whyNone"]
        return said

    failed, succeeded, old = runs.ended("failed"), runs.ended(), runs.ended("failed")
    running, queued, canceled = runs.running(), runs.queue(), runs.queue()
    runs.cancel(canceled)
    Run.objects.filter(id=old).update(ended_at=Now() - timedelta(hours=25))
    for mode, run, part in (
        ("always", queued, "because no machine has taken it"),
        ("always", running, "because its machine has sent none."),
        ("always", succeeded, "within 24 hours of the run's end"),
        ("failures", running, "watch it with POST /runs/:id/watch"),
        ("failures", succeeded, "because it succeeded"),
        ("failures", failed, "within 24 hours of the run's end"),
        ("failures", old, "log there may say why"),
        ("failures", canceled, "no machine executed it"),
        ("never", failed, "Have it record failed runs, or all runs"),
    ):
        with subtests.test(part):
            Trigger.objects.update(record_events=mode)
            assert part in (why(run) or "")
    Trigger.objects.update(record_events="failures")
    calls.events(failed, 1)
    assert why(failed) is None
    RunEventBatch.objects.all().delete()
    assert "were dropped" in (why(failed) or "")


def test_pages_go_on_after_a_number(calls, run, read):
    calls.events(run, 1, 2, 3)
    calls.events(run, *range(4, 61))
    assert read() == (list(range(1, 51)), 60)
    assert read(after=50) == (list(range(51, 61)), 60)
    assert read(after=2, limit=3) == ([3, 4, 5], 60)
    assert read(after=60) == read(after=999_999_999) == ([], 60)


@cases("query", [{"after": "-1"}, {"after": "x"}, {"after": "1" * 10}, {"limit": 0}], undone=True)
def test_a_bad_parameter_is_a_field_error(cast, run, query):
    answer = cast.client(cast.operator).get(f"/api/v1/runs/{run}/events", query)
    assert answer.status_code == 400
    assert list(answer.json()["details"]["fieldErrors"]) == list(query)


def test_a_page_ends_where_it_would_be_too_large_but_has_something(calls, run):
    for seq in (1, 2, 3):
        calls.events(run, seq, text="x" * 1000)
    assert len(page_of_events(run, after=0, limit=50, most_bytes=2500).events) == 2
    assert len(page_of_events(run, after=0, limit=50, most_bytes=1).events) == 1


class Stream:
    """A stream of a run, as the web process would hold it."""

    def __init__(self, client, run, **headers):
        self.ticket = StreamTicket()
        self._ask = lambda: client.get(
            f"/api/v1/runs/{run}/events/stream",
            headers=headers,
            **{"asgi.scope": {STREAM: self.ticket}},
        )

    def answer(self):
        return self._ask()

    def news(self):
        """Returns the ids and the names of the events that are sent next."""
        answer = self.answer()
        assert answer.status_code == 200
        fields = [line.partition(": ") for line in answer.content.decode().splitlines()]
        return [value for name, _, value in fields if name in {"id", "event"}]


@pytest.fixture
def stream(cast, run):
    return lambda **headers: Stream(cast.client(cast.operator), run, **headers)


def test_a_stream_begins_with_the_first_event_and_goes_on(calls, run, stream):
    calls.events(run, 1, 2)
    one = stream()
    assert one.news() == ["1", "2"]
    assert one.news() == []
    calls.events(run, 3)
    assert one.news() == ["3"]


def test_a_stream_goes_on_after_the_last_event_that_was_read(calls, run, stream):
    calls.events(run, 1, 2, 3)
    assert stream(**{"last-event-id": "2"}).news() == ["3"]
    assert stream(**{"last-event-id": "nonsense"}).news() == ["1", "2", "3"]


def test_a_long_backlog_comes_in_pieces(calls, run, stream, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 2)
    calls.events(run, 1, 2, 3)
    one = stream()
    assert (one.news(), one.ticket.more) == (["1", "2"], True)
    assert (one.news(), one.ticket.more) == (["3"], False)


def test_a_stream_tells_the_end_waits_a_moment_for_late_events_and_ends(
    calls, runs, run, stream, monkeypatch
):
    calls.events(run, 1)
    one = stream()
    one.news()
    runs.complete(run)
    assert (one.news(), one.ticket.is_over) == (["status"], False)
    calls.events(run, 2)
    assert (one.news(), one.ticket.is_over) == (["2"], False)
    assert 0 < one.ticket.again_seconds <= reading.LINGERING_SECONDS
    monkeypatch.setattr(reading, "LINGERING_SECONDS", -1)
    assert (one.news(), one.ticket.is_over) == (["end"], True)
    assert stream().news() == ["1", "2", "end"]


def test_who_comes_back_to_an_ended_run_and_has_everything_is_told_not_to_ask_again(
    calls, runs, run, stream, monkeypatch
):
    monkeypatch.setattr(reading, "LINGERING_SECONDS", -1)
    calls.events(run, 1)
    runs.complete(run)
    assert stream(**{"last-event-id": "1"}).answer().status_code == 204
    assert stream(**{"last-event-id": "0"}).news() == ["1", "end"]


def test_events_that_were_dropped_are_not_waited_for(calls, run, stream, read):
    calls.events(run, 1, 2)
    RunEventBatch.objects.all().delete()
    one = stream()
    assert (one.news(), one.ticket.more) == ([], False)
    calls.events(run, 3)
    assert one.news() == ["3"]
    assert read() == ([3], 3)


def test_calls_notify_only_while_somebody_streams(calls, run, stream, said):
    calls.events(run, 1)
    assert said == []
    stream().news()
    assert said == [f"watched {run}"]
    watches.hear(str(run))
    calls.events(run, 2)
    assert said[1:] == [f"runs - {run}"]
    watches.forget()
    calls.events(run, 3)
    assert len(said) == 2


@pytest.fixture
def said(monkeypatch):
    """Returns what the database was told to notify."""
    payloads: list[str] = []
    monkeypatch.setattr("pipedai.wakeups._notify", payloads.extend)
    monkeypatch.setattr("django.db.transaction.on_commit", lambda then, **_: then())
    return payloads


def test_a_viewer_may_not_read_events(cast, run):
    for path in ("events", "events/stream"):
        answer = cast.client(cast.viewer).get(f"/api/v1/runs/{run}/{path}")
        assert answer.status_code == 403
        assert cast.client(cast.stranger).get(f"/api/v1/runs/{run}/{path}").status_code == 404
