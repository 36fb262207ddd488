"""Events arrive in order and once, whatever the API does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from pipedai_worker.api import Refused, TokenRefused, Unavailable
from pipedai_worker.disk.spool import SpoolWriter
from pipedai_worker.redact import Redactor
from pipedai_worker.running import reporting
from pipedai_worker.running.reporting import Recorder, Sender, send_left

from .parts import EventApi, saying, written


@pytest.fixture(autouse=True)
def gather_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "GATHER_SECONDS", 0.0)


class Clock:
    """A clock that passes only while somebody waits. `then` is called after each wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.then: Callable[[], None] = lambda: None
        self.leaving = False

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.then()
        return self.leaving

    def read(self) -> float:
        return self.now


class Sending:
    """A sender that runs in the thread of its test."""

    def __init__(self, directory: Path, events: int) -> None:
        self.api, self.clock = EventApi(), Clock()
        self.path = directory / "run.ndjson"
        self.writer: SpoolWriter = written(self.path, events)
        self.sender = Sender(self.api, "run", self.path, self.clock.wait, self.clock.read)

    def run(self) -> list[int]:
        """Send everything, and return the numbers of the events that the API has got."""
        self.sender.finish()
        self.sender.run()
        assert self.sender.done.is_set()
        return self.api.seqs


def test_all_events_arrive_in_calls_of_500_and_the_file_goes(tmp_path: Path) -> None:
    sending = Sending(tmp_path, 1_001)
    assert sending.run() == list(range(1, 1_002))
    assert [len(call) for call in sending.api.calls] == [500, 500, 1]
    assert not sending.path.exists()


@pytest.mark.parametrize(
    ("events", "size", "seconds"),
    [(1, 100, 1), (10, 100, 1), (11, 100, 2), (499, 100, 2), (500, 100, 0), (3, 50_000, 0)],
)
def test_the_more_a_run_tells_the_longer_its_events_are_gathered(
    events: int, size: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "GATHER_SECONDS", 1.0)
    assert reporting.seconds_to_gather([b"x" * size] * events) == seconds


def test_while_the_api_is_away_for_five_minutes_events_wait_and_then_arrive_once_in_order(
    tmp_path: Path,
) -> None:
    sending = Sending(tmp_path, 3)

    def go_on() -> None:
        # The run goes on: it tells something all the time, and ends while the API is away.
        if not sending.sender._ended.is_set():
            sending.writer.add("message", "on", None)
            sending.sender.news.set()
        away = 10 <= sending.clock.now < 310
        sending.api.failure = Unavailable("away") if away else None
        if sending.clock.now > 250 and not sending.sender._ended.is_set():
            sending.writer.close()
            sending.sender.finish()
        elif not away:
            sending.clock.now += 1

    sending.clock.then = go_on
    sending.sender.run()
    assert len(sending.api.seqs) > 30
    assert sending.api.seqs == list(range(1, len(sending.api.seqs) + 1))
    assert list(chain(*sending.api.calls)) == sending.api.seqs
    assert not sending.path.exists()


def test_a_lost_answer_doubles_nothing(tmp_path: Path) -> None:
    sending = Sending(tmp_path, 3)
    sending.api.lost_answers = 1
    assert sending.run() == [1, 2, 3]
    assert sending.api.calls == [[1, 2, 3], [1, 2, 3]]


def test_a_start_goes_on_where_the_api_says_that_it_is(tmp_path: Path) -> None:
    sending = Sending(tmp_path, 700)
    sending.api.run.events = [{"seq": seq} for seq in range(1, 601)]
    assert sending.run() == list(range(1, 701))
    assert [len(call) for call in sending.api.calls] == [500, 100]


def test_the_api_may_ask_for_earlier_events_again_but_not_for_ever(tmp_path: Path) -> None:
    sending = Sending(tmp_path, 1_000)
    calls = sending.api.calls

    def forget() -> None:
        # A server that was restored from a backup has lost what it had.
        if len(calls) == 1:
            del sending.api.run.events[200:]

    sending.clock.then = forget
    assert sending.run() == list(range(1, 1_001))
    assert [call[0] for call in calls] == [1, 501, 201, 701]
    stubborn = Sending(tmp_path, 3)
    stubborn.api.failure = Refused("gap", 409, "event_gap", {"nextSeq": 2})
    assert stubborn.run() == []
    assert not stubborn.path.exists()


@pytest.mark.parametrize(
    ("status", "code"), [(409, "events_off"), (409, "run_state"), (404, "not_found"), (403, "no")]
)
def test_what_the_api_does_not_take_is_dropped(tmp_path: Path, status: int, code: str) -> None:
    sending = Sending(tmp_path, 3)
    sending.api.failure = Refused("no", status, code)
    assert sending.run() == []
    assert sending.sender.dropped
    assert not sending.path.exists()


def test_an_api_that_takes_events_and_stays_where_it_is_gets_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = Sending(tmp_path, 3)
    answers = iter([{"nextSeq": 1}])
    monkeypatch.setattr(sending.api, "tell_events", lambda *_: next(answers))
    sending.run()
    assert sending.sender.dropped
    assert not sending.path.exists()


def test_an_event_that_the_api_refuses_holds_no_other_up(tmp_path: Path) -> None:
    sending = Sending(tmp_path, 5)
    sending.writer.add("bad", "x", None)
    sending.writer.add("message", "after it", None)
    sending.api.refused_types = {"bad"}
    assert sending.run() == list(range(1, 8))
    refused = sending.api.run.events[5]
    assert (refused["type"], refused["data"]) == ("status", {"subtype": "event_refused"})


def test_a_day_after_the_end_nothing_is_sent_any_more(tmp_path: Path) -> None:
    sending = Sending(tmp_path, 3)
    sending.api.failure = Unavailable("away")
    assert sending.run() == []
    assert 24 * 3600 < sending.clock.now < 25 * 3600
    assert not sending.path.exists()


@pytest.mark.parametrize("failure", [Unavailable("away"), TokenRefused("revoked")])
def test_what_could_not_be_sent_is_sent_by_the_next_start(
    tmp_path: Path, failure: Exception
) -> None:
    sending = Sending(tmp_path, 3)
    sending.api.failure = failure
    sending.clock.leaving = True
    assert sending.run() == []
    sending.api.failure = None
    left = {"gone": tmp_path / "gone.ndjson", "run": sending.path}
    send_left(sending.api, left, lambda _: False)
    assert sending.api.seqs == [1, 2, 3]
    assert not sending.path.exists()


def test_a_run_s_report_waits_for_its_last_events_but_not_for_an_api_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "FLUSH_SECONDS", 60.0)
    api, path, never = EventApi(), tmp_path / "run.ndjson", threading.Event()
    recording = Recorder.begin(api, "run", path, Redactor(), never.wait)
    assert recording is not None
    for _ in range(100):
        recording.take("assistant", saying("on"))
    recording.finish()
    recording.sender.flush()
    assert len(api.seqs) == 100
    api.failure = Unavailable("away")
    recording = Recorder.begin(api, "run", path, Redactor(), never.wait)
    assert recording is not None
    recording.take("assistant", saying("on"))
    recording.finish()
    recording.sender.flush()
    assert path.exists()
    never.set()
    assert recording.sender.done.wait(60)


def test_a_trigger_that_is_set_to_failures_meanwhile_gets_the_events_after_the_end(
    tmp_path: Path,
) -> None:
    api, path = EventApi(), tmp_path / "run.ndjson"
    api.run.record_events, api.run.status = "failures", "running"
    recording = Recorder.begin(api, "run", path, Redactor(), lambda _: False)
    assert recording is not None
    for _ in range(2):
        recording.take("assistant", saying("on"))
        assert recording.sender.done.wait(60)
    recording.finish()
    api.run.status = "failed"
    recording.sender.end("failed")
    assert recording.sender.done.wait(60)
    assert api.seqs == [1, 2]
    assert not path.exists()


def test_a_recorder_stops_when_the_api_takes_no_more(tmp_path: Path) -> None:
    api, path = EventApi(), tmp_path / "run.ndjson"
    api.failure = Refused("Not found", 404, "not_found")
    recording = Recorder.begin(api, "run", path, Redactor(), lambda _: False)
    assert recording is not None
    recording.take("assistant", saying("on"))
    assert recording.sender.done.wait(60)
    for _ in range(3):
        recording.take("assistant", saying("on"))
    assert not recording._writer.open
    assert not path.exists()
    recording.finish()
    assert recording.sender.dropped


def test_a_heartbeat_waits_for_no_room_and_the_next_one_begins_to_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = Sending(tmp_path, 3)
    start, refused = threading.Thread.start, [1, 2]

    def refuse_two(thread: threading.Thread) -> None:
        if refused and thread.name.startswith("events"):
            refused.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_two)
    sending.sender.watch()
    assert len(refused) == 1
    sending.sender.watch()
    sending.sender.watch()
    sending.sender.finish()
    assert sending.sender.done.wait(30)
    assert sending.api.seqs == [1, 2, 3]
