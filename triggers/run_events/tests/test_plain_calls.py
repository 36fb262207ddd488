"""Most calls with events are stored by one statement, which decides as the long way does."""

import json
import tracemalloc
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from pipedai.api.renderers import compact_json
from pipedai.server.outer import LOG
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.runs import Runs
from triggers.models import RunEventDay, RunEventLog, Trigger
from triggers.models.run_event import MAX_RUN_EVENTS
from triggers.run_events.event import joined, make_event
from triggers.run_events.reading import page_of_events
from workers.models import Worker
from workers.protocol.serializers import time_of
from workspaces.models import Environment

AT = "2026-05-04T12:00:00.000Z"


@pytest.fixture
def run(cast):
    return Runs.of(cast, record_events="always").running()


@pytest.fixture
def calls(cast, run):
    """Returns the worker's calls. The first event of the run is stored."""
    calls = WorkerCalls(cast.worker)
    assert calls.events(run, 1).status_code == 200
    return calls


def send(cast, run, *seqs, path=None, body=None, **headers: Any):
    """Sends events and returns the answer. `headers` are those of the request's META."""
    told = [{"seq": seq, "at": AT, "type": "text"} for seq in seqs]
    kind = headers.pop("CONTENT_TYPE", "application/json")
    return cast.worker_client().post(
        path or f"/api/v1/workers/{cast.worker.worker_id}/runs/{run}/events",
        json.dumps({"events": told} if body is None else body),
        content_type=kind,
        **headers,
    )


def seqs(run):
    return [event.seq for event in page_of_events(run, after=0, limit=100, most_bytes=2**30).events]


def statements_of(function):
    with CaptureQueriesContext(
        connection,
    ) as captured:
        answer = function()
    return answer, len(captured)


@pytest.mark.usefixtures("calls")
def test_one_statement_checks_the_token_and_stores_the_events(cast, run):
    answer, statements = statements_of(lambda: send(cast, run, 2, 3))
    assert (answer.status_code, answer.json(), statements) == (200, {"nextSeq": 4}, 1)
    assert seqs(run) == [1, 2, 3]
    log, day = RunEventLog.objects.get(), RunEventDay.objects.get()
    assert (log.next_seq, log.stored, log.bytes) == (4, 3, day.bytes)


@pytest.mark.usefixtures("calls")
def test_both_ways_give_the_same_answer(cast, run):
    plain, one = statements_of(lambda: send(cast, run, 2))
    long, more = statements_of(
        lambda: send(cast, run, 3, CONTENT_TYPE="application/json; charset=utf-8")
    )
    assert one < more
    assert plain.status_code == long.status_code == 200
    assert (plain.json(), long.json()) == ({"nextSeq": 3}, {"nextSeq": 4})
    assert dict(plain.headers) == dict(long.headers)


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("seqs_", "code"), [((3,), "event_gap"), ((2, 4), "event_gap"), ((2, 2), "event_gap")]
)
def test_a_gap_is_refused_by_the_long_way(cast, run, seqs_, code):
    answer = send(cast, run, *seqs_)
    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert seqs(run) == [1]


@pytest.mark.usefixtures("calls")
def test_numbers_that_are_far_apart_take_no_memory(cast, run):
    Worker.objects.filter(id=cast.worker.worker_id).update(token_digest=b"x" * 32)
    tracemalloc.start()
    try:
        # The largest number would end the process of the test, too, if something were made of all numbers between.
        assert send(cast, run, 1, 2_000_000).status_code == 401
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("calls")
def test_what_is_bad_about_a_call_is_said_in_the_usual_order(cast, run):
    bad = {"events": [{"seq": 2, "at": "yesterday", "type": "text"}]}
    other = f"/api/v1/workers/{cast.register('other').worker_id}/runs/{run}/events"
    assert send(cast, run, body=bad).status_code == 400
    assert send(cast, run, body=[1]).status_code == 400
    assert send(cast, run, path=other, body=bad).status_code == 404
    assert send(cast, run, 2, path=other).status_code == 404
    assert send(cast, run, 2, HTTP_CONTENT_ENCODING="gzip").status_code == 415
    assert send(cast, run, 2, HTTP_ACCEPT="text/html").status_code == 406
    path = f"/api/v1/workers/{cast.worker.worker_id}/runs/{run}/events"
    for authorization in ("Basic abc", "Bearer wkt_x", f"Bearer {cast.mint('pwk')}"):
        body = {"events": [{"seq": 2, "at": AT, "type": "text"}]}
        stranger = APIClient(headers={"Authorization": authorization})
        assert stranger.post(path, body, format="json").status_code == 401
    assert seqs(run) == [1]


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("gone", ["token", "worker", "environment"])
def test_who_has_lost_the_right_is_refused(cast, run, gone):
    if gone == "token":
        Worker.objects.filter(id=cast.worker.worker_id).update(token_digest=b"x" * 32)
    elif gone == "worker":
        Worker.objects.filter(id=cast.worker.worker_id).update(deleted_at=Now(), token_digest=None)
    else:
        Environment.objects.filter(id=cast.environment.id).update(deleted_at=Now())
    assert send(cast, run, 2).status_code == 401
    assert seqs(run) == [1]


@pytest.mark.usefixtures("calls")
def test_a_trigger_that_records_no_more_refuses_them(cast, run):
    Trigger.objects.update(record_events="never")
    assert send(cast, run, 2).json()["code"] == "events_off"


@pytest.mark.usefixtures("calls")
def test_a_new_version_of_the_worker_is_noted(cast, run):
    for version, seq in (("1.5.0", 2), ("1.5.0", 3), ("not sane", 4)):
        answer = send(cast, run, seq, HTTP_X_PIPEDAI_WORKER_VERSION=version)
        assert answer.status_code == 200
        assert Worker.objects.get(id=cast.worker.worker_id).version == "1.5.0"
    assert seqs(run) == [1, 2, 3, 4]


@pytest.mark.usefixtures("calls")
def test_the_last_event_that_fits_is_stored_and_the_next_is_not(cast, run):
    RunEventLog.objects.update(next_seq=MAX_RUN_EVENTS, stored=MAX_RUN_EVENTS - 1)
    assert send(cast, run, MAX_RUN_EVENTS).json() == {"nextSeq": MAX_RUN_EVENTS + 1}
    assert RunEventLog.objects.get().is_truncated is False
    assert send(cast, run, MAX_RUN_EVENTS + 1).json() == {"nextSeq": MAX_RUN_EVENTS + 2}
    assert RunEventLog.objects.get().is_truncated is True


@pytest.mark.usefixtures("calls")
def test_the_access_log_names_the_worker_and_counts_the_events(cast, run):
    said: dict[str, Any] = {}
    answer = send(cast, run, 2, 3, **{"asgi.scope": {LOG: said}})
    assert said["events"] == 2
    caller = answer.wsgi_request.user
    assert (caller.type, caller.id) == ("worker", cast.worker.worker_id)


@cases(
    ("sent", "told"),
    [
        ("2026-05-04T12:00:00.123Z", "2026-05-04T12:00:00.123Z"),
        ("2026-05-04T12:00:00.123456Z", "2026-05-04T12:00:00.123Z"),
        ("2026-05-04T12:00:00Z", "2026-05-04T12:00:00.000Z"),
        ("2026-W19-1T12:00:00.12Z", "2026-05-04T12:00:00.120Z"),
        ("2026-05-04T14:00:00.123+02:00", "2026-05-04T12:00:00.123Z"),
        ("2026-05-04 12:00:00.123Z", "2026-05-04T12:00:00.123Z"),
        ("2026-13-04T12:00:00.123Z", None),
        ("2026-02-29T12:00:00.123Z", None),
        ("2026-05-04T12:00:60.123Z", None),
        ("2026-05-04T12:00:00.123", None),
        ("٢026-05-04T12:00:00.123Z", None),
        ("0001-01-01T00:00:00.000+23:00", None),
        (5, None),
    ],
)
def test_a_time_is_told_in_the_form_of_the_api(sent, told):
    assert time_of(sent) == told


@cases("data", [None, {"b": [1.5, None, "é\n\u2028\x7f"], "a": {}}, [], 0, ""])
@cases("text", [None, "", 'Grüße\n\t"\\\x01\u2028 🙂'])
def test_an_events_text_is_the_shortest_json_in_one_line(text, data):
    event = make_event(7, at=AT, type_='t"\n', text=text, data=data)
    told = {"seq": 7, "at": AT, "type": 't"\n', "text": text, "data": data}
    assert event.json == compact_json(told)
    assert joined([event, event]) == (f"{event.json}\n{event.json}", 2 * event.size)
