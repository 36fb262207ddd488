"""Before the agent starts, one tool is called in the probe's conversation, and its result is judged."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.gateway import Gate, Look, Looked, limits
from pipedai_worker.gateway.upstream import Upstream
from pipedai_worker.running.assigned import Approvals, Before, Rule
from pipedai_worker.running.outcome import CLIENT, INFRA, Fault

from .conftest import Way
from .servers import Exchange, McpServer

Open = Callable[..., Way]
ARGUMENTS = {"state": "open"}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def look(way: Way, *, tool: str = "look", run_if: Any = None, last: str | None = None) -> Any:
    before = Before(tool, ARGUMENTS, run_if, last, only=False)
    return way.gateway.probe(look=Look(before, way.calls, way.gate))


def answering(result: Any) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.result(result)


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}], **more}


def failed(way: Way, **given: Any) -> tuple[str, str]:
    fault = look(way, **given)
    assert isinstance(fault, Fault)
    assert "planted" not in fault.sentence
    return fault.fault_class, fault.sentence


@pytest.mark.parametrize("as_events", [False, True])
def test_the_probe_and_the_look_are_one_conversation_and_the_call_is_journaled(
    server: McpServer, open_way: Open, as_events: bool
) -> None:
    server.as_events = as_events
    way = open_way(server.url)
    seen = look(way)
    assert isinstance(seen, Looked)
    assert (seen.value, seen.digest, seen.is_new) == ("done", sha("done"), True)
    assert server.methods() == [
        "initialize", "notifications/initialized", "tools/list", "tools/call", "DELETE",
    ]  # fmt: skip
    asked = server.seen[3][3]["params"]
    assert asked == {"name": "look", "arguments": ARGUMENTS}
    assert server.lower(3)["mcp-session-id"] == "session-1"
    assert way.outcomes() == [("look", "none", "ok")]
    (listed,) = way.calls.listed()
    assert listed["before"] is True
    assert ToolCalls.read(way.calls._path).listed() == [listed]
    way.client.call("set")
    assert "before" not in way.calls.listed()[1]
    assert not look(way, last=sha("done")).is_new


def test_a_server_without_initialize_is_looked_at_as_well(
    server: McpServer, open_way: Open
) -> None:
    error = {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}
    server.ways["initialize"] = lambda exchange: exchange.json(
        {"jsonrpc": "2.0", "id": exchange.message["id"], "error": error}, 400
    )
    assert look(open_way(server.url)).value == "done"
    assert server.methods() == ["initialize", "tools/list", "tools/call"]
    assert server.lower(-1)["mcp-name"] == "look"


# What the tool answers, the value of it, and of what text the digest is.
RESULTS: list[tuple[dict[str, Any], Any, str]] = [
    (text('{"b": 1.0, "a": [2, 1]}'), {"b": 1, "a": [2, 1]}, '{"a":[2,1],"b":1}'),
    (text("x", structuredContent={"b": 1, "a": 2}), {"b": 1, "a": 2}, '{"a":2,"b":1}'),
    (text("x", structuredContent=None), "x", "x"),
    (text("no JSON: é"), "no JSON: é", "no JSON: é"),
    (text('"a text"'), "a text", '"a text"'),
    (text("NaN"), "NaN", "NaN"),
    (text("<html></html>"), "<html></html>", "<html></html>"),
    (text(""), "", ""),
    ({"content": [{"type": "image", "data": "eA=="}]}, [{"type": "image", "data": "eA=="}],
     '[{"data":"eA==","type":"image"}]'),
    ({"content": [{"type": "text", "text": "x"}, {"type": "resource_link", "uri": "a:b"}]},
     [{"type": "text", "text": "x"}, {"type": "resource_link", "uri": "a:b"}],
     '[{"text":"x","type":"text"},{"type":"resource_link","uri":"a:b"}]'),
    ({"content": [{"type": "text", "text": "[1"}, {"type": "text", "text": "]"}]}, [1], "[1]"),
    # RFC 8785 has no form for a number that JavaScript can't hold.
    (text('{"id": 12345678901234567890}'), {"id": 12345678901234567890}, '{"id":12345678901234567890}'),
    ({}, "", ""),
    ({"content": 5}, "", ""),
    ({"content": "x"}, "", ""),
]  # fmt: skip


def test_the_result_is_the_structured_content_or_json_or_text(
    server: McpServer, open_way: Open
) -> None:
    way = open_way(server.url)
    for result, value, hashed in RESULTS:
        server.ways["tools/call"] = answering(result)
        seen = look(way)
        assert (seen.value, seen.digest) == (value, sha(hashed)), result


@pytest.mark.parametrize(
    "result",
    [
        {"task": {"taskId": "1", "status": "working"}},
        {**text("x"), "resultType": "input_required"},
        text("\ud800"),
        text('{"a": "\\ud800"}'),
        text("1e999"),
        text("x", structuredContent={"\ud800": 1}),
    ],
)
def test_what_is_no_result_or_no_json_is_the_tools_fault(
    server: McpServer, open_way: Open, result: dict[str, Any]
) -> None:
    way = open_way(server.url)
    server.ways["tools/call"] = answering(result)
    assert failed(way)[0] == CLIENT


def test_another_order_of_keys_is_no_change_and_another_order_of_a_list_is_one(
    server: McpServer, open_way: Open
) -> None:
    way = open_way(server.url)
    server.ways["tools/call"] = answering(text('{"a": 1, "b": [1, 2]}'))
    last = look(way).digest
    for said, is_new in (('{"b": [1, 2], "a": 1.0}', False), ('{"a": 1, "b": [2, 1]}', True)):
        server.ways["tools/call"] = answering(text(said))
        assert look(way, last=last).is_new is is_new
        clause = {"path": "/b", "op": "contains", "value": 3}
        assert look(way, last=last, run_if=[clause]).is_new is False
        clauses = [{**clause, "value": 2}, {"path": "/a", "op": "eq", "value": 1}]
        assert look(way, last=look(way).digest, run_if=clauses).is_new is True


@pytest.mark.parametrize(
    ("tool", "why"),
    [("unknown", "has no tool 'unknown'"), ("send", "readOnlyHint"), ("set", "readOnlyHint")],
)
def test_a_tool_that_is_unknown_or_may_change_something_is_not_called(
    server: McpServer, open_way: Open, tool: str, why: str
) -> None:
    way = open_way(server.url)
    fault_class, sentence = failed(way, tool=tool)
    assert (fault_class, why in sentence, "`before`" in sentence) == (CLIENT, True, True)
    assert server.methods()[-2:] == ["tools/list", "DELETE"]
    assert way.outcomes() == []


def test_a_gated_tool_is_not_called(server: McpServer, open_way: Open) -> None:
    rules = Approvals((Rule(frozenset(["*"]), only_effects=False),), False, None)
    gate = Gate(rules, redact=lambda value: value, make_room=lambda *_: True, spend=lambda _: None)
    fault_class, sentence = failed(open_way(server.url, gate=gate))
    assert (fault_class, "has to approve" in sentence) == (CLIENT, True)
    assert "tools/call" not in server.methods()


def error(code: int) -> Callable[[Exchange], None]:
    problem = {"code": code, "message": "planted"}
    return lambda exchange: exchange.json(
        {"jsonrpc": "2.0", "id": exchange.message["id"], "error": problem}
    )


@pytest.mark.parametrize(
    ("way_of", "fault", "why", "outcome"),
    [
        (answering(text("GitHub is down.", isError=True)), INFRA, "GitHub is down.", "error"),
        (error(-32602), CLIENT, "refused the call", "error"),
        (error(-32603), INFRA, "-32603", "error"),
        (lambda exchange: exchange.whole(500), INFRA, "500", "error"),
        (lambda exchange: exchange.whole(401), CLIENT, "401", "error"),
        (lambda exchange: exchange.whole(200, b"<html>planted", "text/html"), CLIENT, "not MCP", "error"),
        (lambda exchange: exchange.connection.shutdown(socket.SHUT_RDWR), INFRA, "broke off", "unknown"),
    ],
)  # fmt: skip
def test_a_call_that_fails_is_judged_as_a_server_that_fails(
    server: McpServer,
    open_way: Open,
    way_of: Callable[[Exchange], None],
    fault: str,
    why: str,
    outcome: str,
) -> None:
    server.ways["tools/call"] = way_of
    way = open_way(server.url)
    fault_class, sentence = failed(way)
    assert (fault_class, why in sentence) == (fault, True), sentence
    assert way.outcomes() == [("look", "none", outcome)]


def test_sixteen_megabytes_are_refused_and_seven_are_not(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    server.ways["tools/call"] = answering(text("x" * (16 * limits.MIB)))
    fault_class, sentence = failed(way)
    assert (fault_class, "larger than 8 MiB" in sentence) == (CLIENT, True)
    server.ways["tools/call"] = answering(text("x" * (7 * limits.MIB)))
    assert look(way).is_new


def test_a_slow_tool_is_given_up_also_if_the_run_is_stopped(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def wait(_: Exchange) -> None:
        over.wait(60)

    server.ways["tools/call"] = wait
    way = open_way(server.url)
    monkeypatch.setattr(limits, "FAREWELL_SECONDS", 0.1)
    # The default of the parameter is as it was when the module was imported.
    send: Any = Upstream.send
    monkeypatch.setattr(send.__wrapped__, "__kwdefaults__", {"seconds": 0.2})
    fault_class, sentence = failed(way)
    assert (fault_class, "too long" in sentence) == (INFRA, True)
    assert way.outcomes() == [("look", "none", "unknown")]
    stopped = way.gateway.probe(
        lambda: True, Look(Before("look", {}, None, None, False), way.calls, None)
    )
    assert isinstance(stopped, Fault)
    over.set()


def test_what_can_not_be_written_down_is_not_called(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    way.calls.close()
    fault_class, sentence = failed(way)
    assert (fault_class, "write" in sentence) == (INFRA, True)
    assert "tools/call" not in server.methods()


def test_the_result_is_not_in_its_repr() -> None:
    assert "planted" not in repr(Looked("planted", "a" * 64, "2001", True))
    assert json.dumps(ARGUMENTS) not in repr(Before("look", ARGUMENTS, None, None, False))
