"""The tools of a trigger's MCP server work for the model over both transports, whatever the server does in a call."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from bin import claude

from .conftest import Machines
from .messages_api import MessagesApi, Request
from .steps import calls, mcp, say
from .test_tool_call_counts import listed
from .working import Machine, Started, Surroundings

pytestmark = pytest.mark.long

TEXTS = [f"text-{number}" for number in range(8)]
HEADERS = {"X-Tenant": "planted-tenant-4711", "X-Odd": "${HOME}"}
# The modes of `mcp_modes.py` in which one call each is answered.
BROKEN_CALLS = ("reset", "status-503", "html")


@pytest.fixture(scope="module")
def called(around: Surroundings, machine_of: Machines) -> Callable[[], Started]:
    """Return a function that gives a run with several calls that has succeeded. It is made for the first test."""

    @cache
    def called() -> Started:
        several = calls(*(("mcp__trigger__echo", {"text": text}) for text in TEXTS))
        steps = (several, mcp("big", kib=2048), say("Done."))
        # The server is slow, but in time.
        place = around.mcp.place("delay-1")
        headers = {**place.headers, **HEADERS}
        started = machine_of().start(*steps, place=place, mcpHeaders=headers)
        assert started.ended()["status"] == "succeeded"
        return started

    return called


def results(request: Request) -> list[tuple[str, bool]]:
    """Return what a request tells the model of each call, in order: a text, and whether it is an error."""
    blocks = [
        block
        for message in request.content["messages"]
        for block in (message["content"] if isinstance(message["content"], list) else ())
    ]
    called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    answered = [block for block in blocks if block["type"] == "tool_result"]
    answered.sort(key=lambda block: called.index(block["tool_use_id"]))
    return [(_text(each["content"]), bool(each.get("is_error"))) for each in answered]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_the_model_gets_what_the_server_answers_and_each_call_is_listed(
    around: Surroundings, machine_of: Machines, version: str
) -> None:
    started = machine_of(version).start(
        mcp("echo", text="hello ü 漢"),
        mcp("fail", text="As it should."),
        mcp("put", text="x"),
        mcp("write", text="x", seconds=0.3),
        mcp("leak"),
        say("Done."),
        place=around.mcp.place(),
    )
    run = started.ended()
    assert run["status"] == "succeeded"
    echoed, failed, _, wrote, _ = results(started.script.requests[-1])
    assert (echoed[0].count("echo:hello ü 漢"), echoed[1]) == (1, False)
    assert ("As it should." in failed[0], failed[1]) == (True, True)
    assert ("wrote x" in wrote[0], wrote[1]) == (True, False)
    assert [name for name, _ in started.place.calls()] == ["echo", "fail", "put", "write", "leak"]
    # The last tool tells the secret that it was sent.
    assert started.place.secret not in str(run)
    assert started.place.secret not in str(started.events())

    assert run["toolCalls"] == {"total": 5, "effects": 1, "unknown": 0}
    found = listed(started)
    assert [(each["tool"], each["outcome"], each["effect"]) for each in found] == [
        ("echo", "ok", "none"),
        ("fail", "error", "idempotent"),
        ("put", "ok", "idempotent"),
        ("write", "ok", "possible"),
        ("leak", "ok", "none"),
    ]
    assert found[3]["durationMs"] >= 300
    assert [each["startedAt"] for each in found] == sorted(each["startedAt"] for each in found)


def test_a_server_that_is_slow_but_in_time_is_used(called: Callable[[], Started]) -> None:
    assert "mcp__trigger__echo" in called().script.requests[0].tools


def test_calls_at_the_same_time_get_their_own_answers(called: Callable[[], Started]) -> None:
    started = called()
    *got, _ = (text for text, _ in results(started.script.requests[-1]))
    assert all(f"echo:{text}" in result for text, result in zip(TEXTS, got, strict=True))
    echoed = [arguments["text"] for name, arguments in started.place.calls() if name == "echo"]
    assert sorted(echoed) == TEXTS


def test_a_large_answer_does_not_end_the_run(called: Callable[[], Started]) -> None:
    """The CLI keeps a large result in a file of its own, and shows the model where it begins."""
    *_, (text, _) = results(called().script.requests[-1])
    assert 0 < len(text) < 2048 * 1024


def test_a_server_that_breaks_in_a_call_costs_this_call_alone(
    around: Surroundings, machine: Machine
) -> None:
    texts = [*BROKEN_CALLS, "once"]
    both = calls(
        ("mcp__trigger__echo", {"text": "reset"}), ("mcp__trigger__write", {"text": "reset"})
    )
    place = around.mcp.place("called")
    steps = (both, *(mcp("write", text=text) for text in texts[1:]), say("Most failed."))
    started = machine.start(*steps, place=place)
    run = started.ended()
    assert (run["status"], run["shortMessage"]) == ("succeeded", "Most failed.")
    *broken, (text, is_error) = results(started.script.requests[-1])
    assert [is_error for _, is_error in broken] == [True] * 4, broken
    assert ("wrote once" in text, is_error) == (True, False)
    # What must not be done twice was asked for once.
    written = [arguments["text"] for name, arguments in place.calls() if name == "write"]
    assert written == texts
    # Without an answer, nobody knows what a call has done.
    assert run["toolCalls"] == {"total": 5, "effects": 4, "unknown": 2}
    ends = ["unknown", "unknown", "error", "error", "ok"]
    assert [each["outcome"] for each in listed(started)] == ends


def test_the_server_gets_the_triggers_headers_and_the_cli_none_of_them(
    called: Callable[[], Started], messages: MessagesApi
) -> None:
    started = called()
    seen = started.place.requests()
    assert {each["authorized"] for each in seen} == {True}
    assert {each["headers"]["x-tenant"] for each in seen} == {HEADERS["X-Tenant"]}
    assert {each["headers"]["x-odd"] for each in seen} == {HEADERS["X-Odd"]}
    assert messages.leaked(started.place.secret, HEADERS["X-Tenant"]) == []
    assert started.place.secret not in str(started.events())


def test_the_server_is_told_that_the_session_is_over(called: Callable[[], Started]) -> None:
    requests = called().place.requests()
    opened = {each["headers"].get("mcp-session-id") for each in requests} - {None}
    closed = {
        each["headers"].get("mcp-session-id") for each in requests if each["method"] == "DELETE"
    }
    assert opened
    assert closed == opened
