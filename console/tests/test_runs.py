"""The list of an environment's runs, a run's page, and the questions before one is repeated or canceled."""

import html
import json
import re
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.screens import traces
from console.templatetags.console import indented
from console.tests.visits import text_of, visitor
from testing.processes.worker_calls import WorkerCalls
from testing.world.connections import add_oauth_connection, lose_connection
from testing.world.runs import Runs
from testing.world.tool_calls import CALL
from triggers.models import Run, Trigger
from workers.models import Worker

# What a browser might take for a part of the page, what a terminal might act upon, and what turns the text around it.
HOSTILE = "<img src=x onerror=alert(1)> javascript:alert(1) \x1b[31mred\x1b[0m \u202egnp.exe"
SEEN = "<img src=x onerror=alert(1)> javascript:alert(1) \\u001b[31mred\\u001b[0m \\u202egnp.exe"


@pytest.fixture
def runs(cast):
    """Runs of a new trigger, which records events."""
    return Runs.of(cast, name="Morning report", record_events="always")


def path_of(run_id, more=""):
    return f"/console/runs/{run_id}{more}"


def test_a_waiting_run_says_what_for_and_what_to_do(cast, runs):
    run_id = runs.queue()
    page = visitor(cast.viewer).get(path_of(run_id))
    assert "Machine host-1 has never called." in text_of(page)
    assert (
        "Start the worker program on host-1, or give the trigger another machine. Open the machine"
        in text_of(page)
    )
    machine = f"/console/machines/{cast.worker.worker_id}"
    assert f'href="{machine}">Open the machine</a>' in page.content.decode()


def test_what_is_wrong_with_the_machine_stands_beside_why_a_run_waits(cast, runs):
    run_id = runs.queue()
    told = [{"code": "claude_missing", "message": "There is no <claude> on its PATH."}]
    Worker.objects.filter(id=cast.worker.worker_id).update(
        problems=told, problems_since=datetime.now(UTC)
    )
    page = visitor(cast.viewer).get(path_of(run_id))
    assert "There is no <claude> on its PATH. host-1" in text_of(page)


def test_a_run_that_waits_for_a_login_leads_to_its_connection(cast):
    connection = add_oauth_connection(cast)
    lose_connection(connection)
    runs = Runs.of(cast, connection_id=connection.id, mcp_url=connection.mcp_url)
    page = visitor(cast.viewer).get(path_of(runs.queue())).content.decode()
    assert f'href="/console/connections/{connection.id}">Open the connection</a>' in page


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("lost", "Its machine fell silent. … Find out on the machine, and in its worker's log"),
        (
            "overdue",
            "It took longer than its trigger allows. … Let the trigger's runs take longer, or make the prompt ask for",
        ),
        ("client", "The trigger is to blame: its prompt, model, MCP server, headers or a limit."),
        ("infra", "Something that the run depends on failed"),
        ("canceled", "Was canceled on request, before a machine had taken it"),
    ],
)
def test_an_ended_run_says_whose_fault_that_was(end, said, cast, runs):
    if end in {"client", "infra"}:
        run_id = runs.ended("failed", faultClass=end, errorMessage="Error: no token\nat line 2")
    elif end == "canceled":
        runs.cancel(run_id := runs.queue())
    else:
        run_id = getattr(runs, end)()
    page = visitor(cast.viewer).get(path_of(run_id))
    text = text_of(page)
    assert all(part in text for part in said.split(" … "))
    assert not re.search("faultClass|infra|client", text)
    if end in {"client", "infra"}:
        assert text.count("Error: no token at line 2") == 1


def test_attempts_lead_to_each_other(cast, runs):
    first = runs.lost()
    retry = runs.retry_of(first)["id"]
    client = visitor(cast.viewer)
    page = client.get(path_of(first))
    assert "It is tried again: its retry is due" in text_of(page)
    assert f'href="{path_of(retry)}">Open its retry' in page.content.decode()
    assert f'data-follows="{first} {retry}"' in page.content.decode()
    page = client.get(path_of(retry))
    assert "This is attempt 2." in text_of(page)
    assert f'href="{path_of(first)}">Open the attempt before' in page.content.decode()


def test_what_a_run_wrote_is_text_and_no_character_hides(cast, runs):
    calls = WorkerCalls(cast.worker)
    run_id = runs.running(payload={"note": HOSTILE})
    calls.events(run_id, 1, type=HOSTILE[:20], text=HOSTILE)
    calls.events(run_id, 2, type="tool_call", text="send", data={"input": {"to": HOSTILE}})
    calls.events(run_id, 3, text="x" * 250 * 1024)
    runs.complete(
        run_id,
        "failed",
        faultClass="client",
        shortMessage=HOSTILE,
        errorMessage=HOSTILE,
        model=HOSTILE[:60],
        output={"answer": [HOSTILE]},
        toolCalls={"total": 1, "effects": 1, "unknown": 0},
        toolCallList=[{**CALL, "tool": HOSTILE}],
    )
    client = visitor(cast.operator)
    for path in (
        path_of(run_id),
        path_of(run_id, "/rerun"),
        f"/console/environments/{cast.environment.id}/runs",
    ):
        page = client.get(path).content.decode()
        assert "<img src=x" not in page
        assert not set("\x1b\u202e") & set(page)
    shown = text_of(client.get(path_of(run_id)))
    # The message, the error, output, tool, payload, and two events.
    assert shown.count("\\u202egnp.exe") == 7
    assert len(shown) < 20_000
    whole = text_of(client.get(path_of(run_id, "?after=2&limit=1")))
    assert len(whole) > 250 * 1024


def test_a_scheduled_run_has_its_due_time(cast):
    runs = Runs.of(cast, schedule="0 6 * * *", timezone="Europe/Berlin")
    run_id = runs.queue()
    Run.objects.filter(id=run_id).update(scheduled_for=runs.now)
    shown = text_of(visitor(cast.viewer).get(path_of(run_id)))
    assert re.search(r"4 May( 2026)?, 12:00 UTC", shown)


def test_the_output_is_indented_text(cast, runs):
    run_id = runs.ended(output={"answer": [1, "ä"]})
    page = visitor(cast.viewer).get(path_of(run_id)).content.decode()
    assert "{\n  &quot;answer&quot;: [\n    1,\n    &quot;ä&quot;\n  ]\n}</pre>" in page


def test_deeply_nested_output_is_not_made_many_times_as_long():
    value: list[Any] = [1] * 100_000
    for _ in range(58):
        value = [value]
    whole = json.dumps(value)
    tracemalloc.start()
    assert indented(value) == whole
    assert tracemalloc.get_traced_memory()[1] < 20 * len(whole)
    tracemalloc.stop()


def test_operators_see_payload_and_events_and_read_on_without_a_script(cast, runs, monkeypatch):
    monkeypatch.setattr(traces, "_EVENTS", 50)
    run_id = runs.running(payload={"day": "monday"})
    WorkerCalls(cast.worker).events(run_id, *range(1, 121))
    client = visitor(cast.operator)
    newest = client.get(path_of(run_id)).content.decode()
    assert "monday" in newest
    assert newest.count("line words") == 50
    assert f'data-events="/api/v1/runs/{run_id}/events/stream" data-last="120"' in newest
    assert 'href="?after=0#events">From the beginning' in newest
    first = client.get(path_of(run_id, "?after=0")).content.decode()
    assert first.count("line words") == 50
    assert "data-last" not in first  # It has not read all, so it does not go on by itself.
    assert 'href="?after=50#events" rel="next"' in first
    assert 'href="?after=70#events">The last of 120' in first
    assert client.get(path_of(run_id, "?after=x")).status_code == 400
    seen = visitor(cast.viewer).get(path_of(run_id)).content.decode()
    assert "monday" not in seen
    assert "line words" not in seen


def test_a_trace_has_each_call_once_with_what_it_got_and_gave(cast, runs):
    calls, run_id = WorkerCalls(cast.worker), runs.running()
    of_call = {"callId": "toolu_01"}
    calls.events(
        run_id,
        1,
        type="tool_call",
        text="send_mail",
        data={**of_call, "tool": "send_mail", "input": {"to": "team"}},
    )
    calls.events(
        run_id, 2, type="tool_result", text="No such address", data={**of_call, "isError": True}
    )
    calls.events(
        run_id,
        3,
        type="tool_call",
        text="list",
        data={"callId": "toolu_02", "tool": "list", "input": {}},
    )
    text = text_of(visitor(cast.operator).get(path_of(run_id)))
    assert re.search(
        r'send_mail after [^,]+, \S+ \w+ Arguments \{ "to": "team" \} Error No such address', text
    )
    assert "no answer yet" in text
    runs.complete(
        run_id,
        "failed",
        faultClass="client",
        errorMessage="No",
        toolCalls={"total": 2, "effects": 1, "unknown": 1},
        toolCallList=[{**CALL, "outcome": "error"}, {**CALL, "tool": "list", "callId": None}],
    )
    text = text_of(visitor(cast.operator).get(path_of(run_id)))
    assert text.count("Failed, May have changed something after") == 1
    assert text.count("12 ms") == 2
    for role in ("operator", "viewer"):
        page = text_of(visitor(getattr(cast, role)).get(path_of(run_id)))
        assert page.count("send_mail") == 1, role
        assert "2 tool calls" in page, role


def test_two_calls_of_the_same_tool_at_the_same_moment_are_two_rows(cast, runs):
    call = {**CALL, "callId": None, "durationMs": None, "effect": "none"}
    counts = {"total": 2, "effects": 0, "unknown": 0}
    run_id = runs.ended(toolCalls=counts, toolCallList=[call, call])
    text = text_of(visitor(cast.viewer).get(path_of(run_id)))
    assert text.count("send_mail") == 2


def test_rerunning_shows_what_the_first_run_did_and_makes_one_run(cast, runs):
    counts = {"total": 2, "effects": 1, "unknown": 0}
    listed = [CALL, {**CALL, "tool": "search", "effect": "none"}]
    run_id = runs.ended(toolCalls=counts, toolCallList=listed)
    operator = visitor(cast.operator)
    question = operator.get(path_of(run_id, "/rerun"))
    assert "send_mail May have changed something" in text_of(question)
    assert "search" not in text_of(question)
    (key,) = re.findall(r'name="key" value="([^"]+)"', question.content.decode())
    for _ in range(2):
        answer = operator.post(path_of(run_id, "/rerun"), {"key": key})
        (made,) = Run.objects.filter(rerun_of_id=run_id)
        assert answer["Location"] == path_of(made.id)
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False)
    refused = operator.post(path_of(run_id, "/rerun"))
    assert refused.status_code == 409
    assert 'role="alert"' in refused.content.decode()
    assert visitor(cast.viewer).post(path_of(run_id, "/rerun")).status_code == 403


def test_canceling_asks_first_and_says_when_it_is_too_late(cast, runs):
    run_id = runs.queue()
    operator = visitor(cast.operator)
    assert "It has not begun, and never will." in text_of(operator.get(path_of(run_id, "/cancel")))
    assert Run.objects.get(id=run_id).status == "queued"
    assert operator.post(path_of(run_id, "/cancel"))["Location"] == path_of(run_id)
    assert Run.objects.get(id=run_id).status == "canceled"
    assert operator.post(path_of(run_id, "/cancel")).status_code == 409
    assert visitor(cast.viewer).post(path_of(run_id, "/cancel")).status_code == 403


def test_a_page_offers_what_the_role_and_the_state_allow(cast, runs):
    queued, ended = runs.queue(), runs.ended()
    for role, offered in {"viewer": [], "operator": ["cancel", "rerun"]}.items():
        client = visitor(getattr(cast, role))
        pages = [client.get(path_of(each)).content.decode() for each in (queued, ended)]
        assert re.findall('/(cancel|rerun)"', "".join(pages)) == offered


def test_the_list_is_filtered_in_the_url_and_goes_on(cast, runs):
    for _ in range(51):
        runs.cancel(runs.queue())
    failed = runs.ended("failed", faultClass="client", errorMessage="No token")
    client, path = visitor(cast.viewer), f"/console/environments/{cast.environment.id}/runs"

    def rows(**query):
        return client.get(path, query).content.decode().count('<th scope="row"')

    assert rows() == 50
    assert rows(status="failed,timed_out") == 1
    assert rows(triggerId=cast.trigger_id) == 0
    assert rows(workerId=cast.worker.worker_id, source="manual", status="failed") == 1
    later = Run.objects.get(id=failed).queued_at + timedelta(days=1)
    assert rows(to=f"{later:%Y-%m-%dT%H:%M}", status="failed") == 1
    assert rows(**{"from": f"{later:%Y-%m-%dT%H:%M}"}) == 0
    first = client.get(path, {"source": "manual"}).content.decode()
    (older,) = re.findall(r'href="(\?[^"]+)" rel="next"', first)
    assert "source=manual" in older
    assert (
        client.get(f"{path}{html.unescape(older)}").content.decode().count('<th scope="row"') == 2
    )


def test_a_filter_that_the_api_refuses_says_so_at_its_field(cast):
    path = f"/console/environments/{cast.environment.id}/runs"
    page = visitor(cast.viewer).get(path, {"from": "yesterday", "status": "failed"})
    assert page.status_code == 400
    text = text_of(page)
    assert "Must be an ISO 8601 time" in text[text.index("From (UTC)") : text.index("Until (UTC)")]
    assert "Correct what is marked above" in text
    assert visitor(cast.viewer).get(path, {"cursor": "x"}).status_code == 400


def test_one_of_many_machines_is_found_by_its_name(cast, runs):
    runs.ended()
    path, viewer = f"/console/environments/{cast.environment.id}/runs", visitor(cast.viewer)
    assert '<select name="workerId"' in viewer.get(path).content.decode()
    for number in range(20):
        cast.register(f"host-{number + 2}")
    assert '<input name="workerId" value="" list=' in viewer.get(path).content.decode()
    label = cast.client(cast.viewer).get(f"/api/v1/workers/{cast.worker.worker_id}").json()["label"]
    found = viewer.get(path, {"workerId": label}).content.decode()
    assert (f'name="workerId" value="{label}"' in found, "<tbody>" in found) == (True, True)
    none = viewer.get(path, {"workerId": "nobody"})
    assert "Nothing has this name." in text_of(none)


def test_several_runs_are_rerun_once_each(cast, runs):
    ended = [str(runs.ended()) for _ in range(2)]
    operator, path = (
        visitor(cast.operator),
        f"/console/environments/{cast.environment.id}/runs",
    )
    assert operator.get(path).content.decode().count('name="id"') == 2
    question = operator.post(f"{path}/several", {"do": "rerun", "id": ended})
    assert "Rerun 2 runs?" in text_of(question)
    (key,) = re.findall(r'name="key" value="([^"]+)"', question.content.decode())
    for _ in range(2):
        answered = {"do": "rerun", "id": ended, "key": key}
        assert operator.post(f"{path}/several", answered)["Location"] == path
    assert Run.objects.filter(rerun_of__isnull=False).count() == 2


def test_several_runs_are_canceled_after_a_question_and_viewers_are_offered_neither(cast, runs):
    ids = [str(each) for each in (runs.ended(), runs.running(), runs.queue())]
    operator, path = visitor(cast.operator), f"/console/environments/{cast.environment.id}/runs"
    bulk = r'name="do" value="(\w+)"'
    assert re.findall(bulk, operator.get(path).content.decode()) == ["rerun", "cancel"]
    assert re.findall(bulk, visitor(cast.viewer).get(path).content.decode()) == []
    question = operator.post(f"{path}/several", {"do": "cancel", "id": ids[1:]})
    assert "Cancel 2 runs?" in text_of(question)
    assert not Run.objects.filter(cancel_requested_at__isnull=False).exists()
    answered = {"do": "cancel", "id": ids, "key": "any"}
    assert visitor(cast.viewer).post(f"{path}/several", answered).status_code == 403
    done = operator.post(f"{path}/several", answered)
    assert (done.status_code, "2 of 3 done" in text_of(done)) == (409, True)
    assert Run.objects.get(id=ids[1]).cancel_requested_at
    assert Run.objects.get(id=ids[2]).status == "canceled"
