"""A worker sends the events of its run: once each, in order, and within the limits."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from pipedai.ids import new_id
from pipedai.sql import database_now
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.runs import Runs
from triggers.models import Run, RunEventDay, RunEventLog, Trigger
from triggers.models.run import MAX_RUN_EVENTS
from triggers.run_events import recording
from triggers.run_events.reading import page_of_events

AT = "2026-05-04T12:00:00.000Z"
MIB = 1024 * 1024


@pytest.fixture
def runs(runs):
    Trigger.objects.filter(id=runs.trigger_id).update(record_events="always")
    return runs


@pytest.fixture
def run(runs):
    return runs.running()


@pytest.fixture
def calls(cast):
    return WorkerCalls(cast.worker)


def stored(run):
    """Returns the run's stored events."""
    page = page_of_events(run, after=0, limit=100_000, most_bytes=100 * MIB)
    return [json.loads(each.json) for each in page.events]


def seqs(run):
    return [each["seq"] for each in stored(run)]


def refusal(answer):
    return answer.status_code, answer.json()["code"], answer.json().get("nextSeq")


def test_events_are_stored_as_they_were_sent(calls, run):
    sent = [
        {"seq": 1, "at": AT, "type": "text", "text": "Grüße\n\u2028", "data": None},
        {"seq": 2, "at": AT, "type": "x" * 64, "text": None, "data": {"b": 1, "a": [1.50]}},
    ]
    answer = calls.send_events(run, sent)
    assert (answer.status_code, answer.json()) == (200, {"nextSeq": 3})
    assert stored(run) == sent


def test_what_is_left_out_is_null_and_a_time_is_told_in_utc(calls, run):
    calls.send_events(run, [{"seq": 1, "at": "2026-05-04T14:00:00+02:00", "type": "t", "new": 1}])
    assert stored(run) == [{"seq": 1, "at": AT, "type": "t", "text": None, "data": None}]


def test_a_repeated_event_is_stored_once(calls, run):
    calls.events(run, 1, 2)
    assert calls.events(run, 1, 2).json() == {"nextSeq": 3}
    assert calls.events(run, 2, 3, 4, text="Later").json() == {"nextSeq": 5}
    assert [each["text"] for each in stored(run)] == ["Reading…", "Reading…", "Later", "Later"]


def test_no_events_ask_where_to_go_on(calls, run):
    assert calls.events(run).json() == {"nextSeq": 1}
    calls.events(run, 1)
    assert calls.events(run).json() == {"nextSeq": 2}


@cases("sent", [(2,), (1, 3), (2, 1), (1, 1)], undone=True)
def test_a_gap_is_refused_and_nothing_of_the_call_is_stored(calls, run, sent):
    assert refusal(calls.events(run, *sent)) == (409, "event_gap", 1)
    assert seqs(run) == []
    calls.events(run, 1)
    assert refusal(calls.events(run, 3)) == (409, "event_gap", 2)


def test_a_trigger_that_records_none_refuses_them(cast, calls):
    runs = Runs(cast, cast.add_trigger(record_events="never"), now=database_now())
    for run in (runs.ended("failed"), runs.running()):
        assert refusal(calls.events(run, 1))[:2] == (409, "events_off")
    assert not RunEventLog.objects.exists()


def test_with_failures_a_run_has_events_once_it_has_ended_otherwise_than_succeeded(
    cast, calls, subtests
):
    runs = Runs(cast, cast.add_trigger(), now=database_now())
    run = runs.running()
    assert refusal(calls.events(run, 1))[:2] == (409, "events_off")
    runs.complete(run)
    assert refusal(calls.events(run, 1))[:2] == (409, "events_off")
    assert not RunEventLog.objects.exists()
    canceled = runs.running()
    runs.cancel(canceled)
    runs.complete(canceled, "canceled")
    ended = {status: runs.ended(status, faultClass="client") for status in ("failed", "timed_out")}
    for how, run in {**ended, "canceled": canceled, "lost": runs.lost()}.items():
        with subtests.test(how):
            # The first call of a run takes the long way, and the second the short one.
            assert calls.events(run, 1).json() == {"nextSeq": 2}
            assert calls.events(run, 2).json() == {"nextSeq": 3}
            assert seqs(run) == [1, 2]


def test_a_success_with_failures_takes_the_statements_of_one_with_never(cast, calls):
    def statements_of_a_run(trigger_id: Any) -> list[str]:
        Runs(cast, trigger_id).queue()
        with CaptureQueriesContext(connection) as captured:
            run = calls.claim_next(claimId=str(trigger_id), start=True).json()["run"]["id"]
            calls.heartbeat(run)
            assert calls.complete(run, status="succeeded").status_code == 200
        # Up to the first id, or the name of a savepoint.
        return [re.split("['\"]", query["sql"])[0] for query in captured]

    told = [
        statements_of_a_run(cast.add_trigger(record_events=mode))
        for mode in ("never", "never", "failures")
    ]
    # The first run of a worker also writes what the worker had not told before.
    assert told[1] == told[2]


def test_they_are_taken_from_the_runs_worker_alone(cast, calls, runs, run):
    other = WorkerCalls(cast.register("other"))
    assert other.events(run, 1).status_code == 404
    assert calls.events(new_id(), 1).status_code == 404
    queued = runs.queue()
    assert refusal(calls.events(queued, 1))[:2] == (409, "run_state")


def test_they_are_taken_until_a_day_after_the_runs_end(calls, runs, run):
    runs.complete(run)
    Run.objects.filter(id=run).update(ended_at=Now() - timedelta(hours=23, minutes=59))
    assert calls.events(run, 1).status_code == 200
    Run.objects.filter(id=run).update(ended_at=Now() - timedelta(hours=24, minutes=1))
    answer = calls.events(run, 2)
    assert refusal(answer)[:2] == (409, "run_state")
    assert answer.json()["status"] == "succeeded"


@cases(
    ("change", "sentence"),
    [
        ({"seq": 0}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 2**31}, "seq"),
        ({"at": "yesterday"}, "at"),
        ({"at": "2026-05-04T12:00:00"}, "at"),
        ({"type": ""}, "type"),
        ({"type": "x" * 65}, "type"),
        ({"type": None}, "type"),
        ({"text": 5}, "text"),
    ],
    undone=True,
)
def test_a_malformed_event_is_a_field_error(calls, run, change, sentence):
    answer = calls.send_events(run, [{"seq": 1, "at": AT, "type": "text", **change}])
    assert answer.status_code == 400
    (said,) = answer.json()["details"]["fieldErrors"]["events"]
    assert said.startswith("Event 1 of the list must have")
    assert said.endswith(f"as {sentence}.")


def test_a_call_has_at_most_500_events(calls, run):
    assert calls.events(run, *range(1, 501)).json() == {"nextSeq": 501}
    assert calls.events(run, *range(501, 1002)).status_code == 400


def test_a_call_has_at_most_256_kib(calls, run):
    event_ = {"seq": 1, "at": AT, "type": "text", "text": ""}
    room = 256 * 1024 - len(json.dumps({"events": [event_]}))
    answer = calls.send_events(run, [event_ | {"text": "x" * (room + 1)}])
    assert refusal(answer)[:2] == (413, "body_too_large")
    answer = calls.send_events(run, [event_ | {"text": "x" * room}])
    assert answer.status_code == 200


def test_what_the_database_cannot_hold_is_replaced(calls, run):
    deep: list[Any] = []
    for _ in range(61):
        deep = [deep]
    events = [
        {"seq": 1, "at": AT, "type": "text", "text": "a\x00b\ud800"},
        {"seq": 2, "at": AT, "type": "text", "data": deep},
        {"seq": 3, "at": AT, "type": "text", "data": deep[0]},
    ]
    assert calls.send_events(run, events).status_code == 200
    first, second, third = stored(run)
    assert (first["text"], second["data"]) == ("a\ufffdb\ufffd", None)
    assert third["data"] == deep[0]


def bytes_of(run):
    return sum(len(each.json.encode()) for each in _all(run))


def _all(run):
    return page_of_events(run, after=0, limit=100_000, most_bytes=100 * MIB).events


def size_of(count):
    """Returns the bytes of the first `count` events of `calls.events`."""
    return sum(
        recording.make_event(seq, at=AT, type_="text", text="Reading…", data=None).size
        for seq in range(1, count + 1)
    )


def test_the_events_that_fit_are_kept_and_then_one_that_says_so(calls, run, monkeypatch):
    monkeypatch.setattr(recording, "MAX_RUN_EVENTS", 3)
    calls.events(run, 1, 2, 3)
    assert RunEventLog.objects.get(run_id=run).is_truncated is False
    assert calls.events(run, 4, 5).json() == {"nextSeq": 6}
    assert calls.events(run, 6).json() == {"nextSeq": 7}
    assert refusal(calls.events(run, 8)) == (409, "event_gap", 7)
    assert [each["type"] for each in stored(run)] == ["text", "text", "text", "truncated"]
    assert stored(run)[3]["seq"] == 4
    assert "20,000" in stored(run)[3]["text"]


@pytest.mark.parametrize("limit", ["MAX_RUN_BYTES", "MAX_DAY_BYTES"])
def test_bytes_are_limited_exactly(calls, run, monkeypatch, limit):
    monkeypatch.setattr(recording, limit, size_of(3))
    calls.events(run, 1)
    calls.events(run, 2, 3)
    assert seqs(run) == [1, 2, 3]
    assert bytes_of(run) == size_of(3) == RunEventLog.objects.get(run_id=run).bytes
    calls.events(run, 4)
    assert [each["type"] for each in stored(run)][3:] == ["truncated"]


@pytest.mark.parametrize("limit", ["MAX_RUN_BYTES", "MAX_DAY_BYTES"])
def test_one_byte_too_many_keeps_those_before(calls, run, monkeypatch, limit):
    monkeypatch.setattr(recording, limit, size_of(3) - 1)
    assert calls.events(run, 1, 2, 3, 4).json() == {"nextSeq": 5}
    assert [each["type"] for each in stored(run)] == ["text", "text", "truncated"]


def test_the_limits_are_those_of_the_spec():
    assert (MAX_RUN_EVENTS, recording.MAX_RUN_BYTES) == (20_000, 5 * MIB)
    assert recording.MAX_DAY_BYTES == 1024 * MIB


def test_the_days_limit_is_the_environments_and_begins_anew_each_day(
    cast, calls, runs, run, monkeypatch
):
    monkeypatch.setattr(recording, "MAX_DAY_BYTES", size_of(2))
    calls.events(run, 1, 2)
    runs.complete(run)
    other = runs.running()
    calls.events(other, 1)
    assert [each["type"] for each in stored(other)] == ["truncated"]
    runs.complete(other)
    RunEventDay.objects.update(day=F("day") - timedelta(days=1))
    third = runs.running()
    calls.events(third, 1, 2)
    assert seqs(third) == [1, 2]
