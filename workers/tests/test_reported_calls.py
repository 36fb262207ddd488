"""What a worker tells of tool calls is taken if it is well-formed, and costs no heartbeat and no outcome if not."""

from typing import Any

import pytest

from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.runs import Runs
from testing.world.tool_calls import CALL, shown

COUNTS = {"total": 3, "effects": 2, "unknown": 1}

MALFORMED = [
    None, 0, "3", True, [], [3, 2, 1], {}, {"total": 3}, {"total": 3, "effects": 2},
    {**COUNTS, "total": "3"}, {**COUNTS, "total": None}, {**COUNTS, "total": True}, {**COUNTS, "total": 3.5},
    {**COUNTS, "total": -1}, {**COUNTS, "total": 2**31}, {**COUNTS, "total": 10**300},
    {**COUNTS, "effects": 4}, {**COUNTS, "unknown": 4}, {**COUNTS, "effects": -1}, {**COUNTS, "unknown": {}},
]  # fmt: skip


@pytest.fixture
def runs(cast) -> Runs:
    return Runs.of(cast)


@pytest.fixture
def calls(cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


@pytest.fixture
def listed(cast, runs, calls):
    """Returns a function that completes a run with a list of tool calls, and returns the list as it is shown."""

    def listing(calls_list: Any) -> Any:
        run_id = runs.running()
        response = calls.complete(run_id, status="succeeded", toolCallList=calls_list)
        assert response.status_code == 200, response.json()
        client = cast.client(cast.viewer)
        return client.get(f"/api/v1/runs/{run_id}/tool-calls").json()["items"]

    return listing


def test_counts_of_a_heartbeat_are_kept_and_newer_fields_ignored(runs, calls):
    run_id = runs.running()
    told = {**COUNTS, "total": 3.0, "kinds": {}}
    assert calls.heartbeat(run_id, toolCalls=told, mood="good").status_code == 200
    assert runs.counts(run_id) == (3, 2, 1)


@cases("counts", MALFORMED, undone=True)
def test_malformed_counts_cost_nothing(runs, calls, counts):
    run_id = runs.running()
    assert calls.heartbeat(run_id, toolCalls=COUNTS).status_code == 200
    assert calls.heartbeat(run_id, toolCalls=counts).status_code == 200
    assert calls.complete(run_id, status="succeeded", toolCalls=counts).status_code == 200
    assert runs.counts(run_id) == (3, 2, 1)


def test_a_heartbeat_s_counts_go_to_no_other_worker_s_run(cast, runs):
    run_id = runs.running()
    stranger = WorkerCalls(cast.register("host-2"))
    assert stranger.heartbeat(run_id, toolCalls=COUNTS).status_code == 404
    assert runs.counts(run_id) == (None, None, None)


@cases("calls_list", [None, {}, "x", 5, [], [None, 5, "x", [], {}], [[CALL]]], undone=True)
def test_a_malformed_list_costs_no_outcome(listed, calls_list):
    assert listed(calls_list) == []


BAD: dict[str, list[Any]] = {
    "at": [None, 5, "", "now", "2026-05-04", "2026-05-04T12:00:00", "0001-01-01T00:00:00+14:00"],
    "tool": [None, 5, "", [], {}],
    "outcome": [None, "fine", 1, [], {}, ["ok"]],
    "effect": [None, "some", True, [], {}],
}


@cases(
    ("field", "value"),
    [(field, value) for field, values in BAD.items() for value in values],
    undone=True,
)
def test_a_malformed_call_is_left_out(listed, field, value):
    assert listed([{**CALL, field: value}, CALL]) == [shown(CALL)]


NO_IDS: list[Any] = [None, 5, "", "c" * 201, []]
NO_DURATIONS: list[Any] = [None, -1, 1.5, "5", 2**31, True, []]
# (field, what is sent, what is shown)
SHOWN: list[tuple[str, Any, Any]] = [
    ("at", "2026-05-04T14:00:01.0004+02:00", "2026-05-04T12:00:01.000Z"),
    ("tool", "t" * 201, "t" * 200),
    ("tool", "\x00\ud800", "\ufffd\ufffd"),
    ("durationMs", 5.0, 5),
    *(("durationMs", value, None) for value in NO_DURATIONS),
    *(("callId", value, None) for value in NO_IDS),
    *(("outcome", word, word) for word in ("ok", "error", "unknown")),
    *(("effect", word, word) for word in ("none", "idempotent", "possible")),
]


@cases(("field", "value", "kept"), SHOWN, undone=True)
def test_a_call_is_shown_in_the_form_of_the_api(listed, field, value, kept):
    assert listed([{**CALL, field: value, "arguments": {"a": 1}}]) == [shown({**CALL, field: kept})]


def test_the_first_500_are_kept(listed):
    sent = [{**CALL, "durationMs": n} for n in range(1000)]
    assert listed([{}, *sent]) == [shown(each) for each in sent[:500]]


def test_a_list_that_is_nested_too_deep_costs_no_outcome(listed):
    value: Any = 0
    for _ in range(300):
        value = [value]
    assert listed(value) == []


def test_a_number_that_no_json_reader_holds_is_refused_as_ever(runs, cast):
    run_id = runs.running()
    url = f"/api/v1/workers/{cast.worker.worker_id}/runs/{run_id}/heartbeat"
    body = '{"toolCalls": {"total": 1%s, "effects": 0, "unknown": 0}}' % ("0" * 400)
    response = cast.worker_client().post(url, body, content_type="application/json")
    assert response.status_code == 400
    assert runs.counts(run_id) == (None, None, None)
