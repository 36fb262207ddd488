"""The stand-in for claude connects to the MCP server of its configuration, and calls its tools.

What it tells looks as what claude tells: `real/test_stand_in.py` compares the two.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from testing.world.cases import cases

from pipedai_worker.commands import STAND_IN
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.disk.durable import write_private
from pipedai_worker.executors import claude
from pipedai_worker.stand_in.mcp_server import Tool
from pipedai_worker.stand_in.tools import McpClient, McpError
from tests.conftest import Workers

from .gateway.servers import TOKEN, McpServer, serving

NOWHERE = "http://127.0.0.1:7/mcp"
HEADERS = {"Authorization": TOKEN}


def play(
    directory: Path, prompt: str, url: str, *options: str, offline: bool = False
) -> list[dict[str, Any]]:
    """Return what the stand-in tells about this prompt, event by event."""
    config = json.loads(claude.mcp_configuration(url, 60))
    config["mcpServers"]["trigger"]["headers"] = HEADERS
    path = directory / f"{uuid4().hex}.json"
    write_private(path, json.dumps(config).encode())
    argv = STAND_IN if offline else STAND_IN[:-1]
    options = ("-p", "--output-format", "stream-json", "--verbose", *options)
    done = subprocess.run(
        [*argv, *options, "--mcp-config", str(path)],
        input=prompt.encode(),
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        cwd=directory,
        timeout=60,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def results(events: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Return what the tools answered: the text, and whether it is an error."""
    blocks = [event["message"]["content"][0] for event in events if event["type"] == "user"]
    return [(text_of(block["content"]), block.get("is_error", False)) for block in blocks]


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else str(content[0]["text"])


@pytest.mark.parametrize("kind", ["json", "events"])
def test_it_calls_the_servers_tools_over_each_transport(tmp_path: Path, kind: str) -> None:
    prompt = 'standin: call send {"to": "x"}\nstandin: call set {"fail": true}\nstandin: call no'
    with serving(McpServer(as_events=kind == "events")) as server:
        events = play(tmp_path, prompt, server.url)
    assert events[0]["mcp_servers"][0]["status"] == "connected"
    assert {f"mcp__trigger__{name}" for name in ("look", "set", "send")} < set(events[0]["tools"])
    assert results(events) == [
        ("done", False),
        ("done", True),
        ("No such tool available: mcp__trigger__no", True),
    ]
    called = [
        message for *_, message in server.seen if message and message["method"] == "tools/call"
    ]
    calls = [
        block["id"]
        for event in events
        if event["type"] == "assistant"
        for block in event["message"]["content"]
        if block["type"] == "tool_use"
    ]
    meta = {"claudecode/toolUseId": calls[0]}
    assert called[0]["params"] == {"name": "send", "arguments": {"to": "x"}, "_meta": meta}
    assert len(called) == 2
    assert server.seen[-1][0] == "DELETE"


def test_without_any_line_it_calls_only_a_tool_that_reads(tmp_path: Path) -> None:
    with serving(McpServer()) as server:
        events = play(tmp_path, "Do it.", server.url, "--json-schema", '{"type": "integer"}')
    assert results(events)[0] == ("done", False)
    assert [event["structured_output"] for event in events if event["type"] == "result"] == [1]
    called = [
        message for *_, message in server.seen if message and message["method"] == "tools/call"
    ]
    assert [message["params"]["name"] for message in called] == ["look"]


def test_it_says_that_a_server_can_not_be_reached_unless_it_may_do_without(tmp_path: Path) -> None:
    events = play(tmp_path, "Go.", NOWHERE)
    assert events[0]["mcp_servers"][0]["status"] == "failed"
    assert "a prompt of 1 word and" in events[-1]["result"]
    assert "mcp_servers" not in play(tmp_path, "Go.", NOWHERE, offline=True)[0]


def test_it_says_of_a_server_what_it_is_told_to_say(tmp_path: Path) -> None:
    with serving(McpServer()) as server:
        events = play(tmp_path, "standin: server needs-auth", server.url)
        assert server.seen == []
    assert events[0]["mcp_servers"][0]["status"] == "needs-auth"


@cases(
    ("method", "way"),
    [
        ("tools/call", lambda exchange: exchange.cut()),
        ("tools/call", lambda exchange: exchange.whole(503)),
        ("tools/call", lambda exchange: exchange.whole(200, b"<html>", "text/html")),
        ("tools/call", lambda exchange: exchange.whole(202)),
        ("initialize", lambda exchange: exchange.json({"id": 1, "error": {"message": "no"}})),
        ("tools/list", lambda exchange: exchange.json({"id": 2, "error": None})),
    ],
)
def test_whatever_a_server_does_wrong_is_one_kind_of_error(method: str, way: Any) -> None:
    with serving(McpServer()) as server:
        server.ways[method] = way
        with pytest.raises(McpError):
            connect_and_call(server.url)


def connect_and_call(url: str) -> None:
    client = McpClient({"url": url, "headers": HEADERS})
    client.connect()
    client.call("look", {})


def test_an_unscripted_run_waits_for_a_person_and_goes_on(api: FakeApi, workers: Workers) -> None:
    look = {"name": "look", "annotations": {"readOnlyHint": True}}
    api.tools = {"look": Tool(look, lambda _: "Here.")}
    run = api.add("Look.", rules=[{"tools": "*", "when": "always"}])
    workers.start()
    api.until(lambda: run.status == "waiting")
    assert run.approval is not None
    assert run.approval["tool"] == "look"
    api.decide(run, "approve")
    api.until(lambda: run.status == "succeeded")
    assert (run.spent, run.tool_calls and run.tool_calls["total"]) == (1, 1)


def test_a_run_without_a_server_has_no_tools(api: FakeApi, workers: Workers) -> None:
    plain = api.add("Say something.", mcp_url=None)
    gated = api.add("Say something.", mcp_url=None, rules=[{"tools": "*", "when": "always"}])
    workers.start()
    for run in (plain, gated):
        assert api.until_ended(run)["status"] == "succeeded"
        assert run.tool_calls == {"total": 0, "effects": 0, "unknown": 0}
