"""The tools of a trigger's MCP server work for the model over both transports, whatever the server does in a call."""

from __future__ import annotations

from typing import Any

import pytest
from bin import claude

from .conftest import Machines
from .messages_api import MessagesApi, Request
from .steps import calls, mcp, say
from .working import Machine, Surroundings

pytestmark = pytest.mark.slow

BROKEN_CALLS = ("reset-tools-call", "statuscall-503", "htmlcall")


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
@pytest.mark.parametrize("sse", [False, True], ids=["http", "sse"])
def test_the_model_gets_what_the_server_answers(
    around: Surroundings, machine_of: Machines, version: str, sse: bool
) -> None:
    started = machine_of(version).start(
        mcp("echo", text="hello ü 漢"),
        mcp("fail", text="As it should."),
        mcp("nap", seconds=0.2),
        say("Done."),
        place=around.mcp.place(sse=sse),
    )
    assert started.ended()["status"] == "succeeded"
    echoed, failed, slept = results(started.script.requests[-1])
    assert (echoed[0].count("echo:hello ü 漢"), echoed[1]) == (1, False)
    assert ("As it should." in failed[0], failed[1]) == (True, True)
    assert ("slept 0.2 s" in slept[0], slept[1]) == (True, False)
    assert [name for name, _ in started.place.calls()] == ["echo", "fail", "nap"]


def test_calls_at_the_same_time_get_their_own_answers(machine: Machine) -> None:
    texts = [f"text-{number}" for number in range(8)]
    several = calls(*(("mcp__trigger__echo", {"text": text}) for text in texts))
    started = machine.start(several, say("Done."))
    assert started.ended()["status"] == "succeeded"
    got = [text for text, _ in results(started.script.requests[-1])]
    assert len(got) == len(texts)
    assert all(f"echo:{text}" in result for text, result in zip(texts, got, strict=True))
    assert sorted(arguments["text"] for _, arguments in started.place.calls()) == texts


def test_a_large_answer_does_not_end_the_run(machine: Machine) -> None:
    """The CLI keeps a large result in a file of its own, and shows the model where it begins."""
    started = machine.start(mcp("big", kib=2048), say("Done."))
    assert started.ended()["status"] == "succeeded"
    ((text, _),) = results(started.script.requests[-1])
    assert 0 < len(text) < 2048 * 1024


@pytest.mark.parametrize("sse", [False, True], ids=["http", "sse"])
def test_a_server_that_breaks_in_a_call_costs_this_call_alone(
    around: Surroundings, machine: Machine, sse: bool
) -> None:
    steps = (mcp("write", text="once"), say("It failed."))
    places = [around.mcp.place(mode, sse=sse) for mode in BROKEN_CALLS]
    for started in [machine.start(*steps, place=place) for place in places]:
        run = started.ended()
        assert (run["status"], run["shortMessage"]) == ("succeeded", "It failed.")
        ((text, is_error),) = results(started.script.requests[-1])
        assert is_error, text
        # What must not be done twice was asked for once.
        assert started.place.calls() == [("write", {"text": "once"})]


def test_the_server_gets_the_triggers_headers_and_the_cli_none_of_them(
    around: Surroundings, machine: Machine, messages: MessagesApi
) -> None:
    place = around.mcp.place()
    headers = {**place.headers, "X-Tenant": "planted-tenant-4711", "X-Odd": "${HOME}"}
    started = machine.start(mcp("echo", text="x"), say("Done."), place=place, mcpHeaders=headers)
    assert started.ended()["status"] == "succeeded"

    seen = place.requests()
    assert {each["authorized"] for each in seen} == {True}
    assert {each["headers"]["x-tenant"] for each in seen} == {"planted-tenant-4711"}
    assert {each["headers"]["x-odd"] for each in seen} == {"${HOME}"}
    assert messages.leaked(place.secret, "planted-tenant-4711") == []
    assert place.secret not in str(started.events())


def test_a_secret_that_the_server_tells_itself_is_in_no_outcome(machine: Machine) -> None:
    started = machine.start(mcp("leak"), say("Told."))
    run = started.ended()
    assert run["status"] == "succeeded"
    assert started.place.secret not in str(run)
    assert started.place.secret not in str(started.events())


def test_the_server_is_told_that_the_session_is_over(machine: Machine) -> None:
    started = machine.start(mcp("echo", text="x"), say("Done."))
    assert started.ended()["status"] == "succeeded"
    opened = {each["headers"].get("mcp-session-id") for each in started.place.requests()} - {None}
    closed = {
        each["headers"].get("mcp-session-id")
        for each in started.place.requests()
        if each["method"] == "DELETE"
    }
    assert opened
    assert closed == opened
