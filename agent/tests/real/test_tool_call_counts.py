"""The API tells of every tool call that a run's CLI made: how many, what they could change, and how they ended."""

from __future__ import annotations

from typing import Any

import pytest

from .steps import calls, mcp, say
from .working import Machine, Started, Surroundings

pytestmark = pytest.mark.slow


def listed(started: Started) -> list[dict[str, Any]]:
    """Return the calls of a run as the API lists them."""
    answer = started.machine.around.site.get(f"/runs/{started.id}/tool-calls")
    return list(answer["toolCalls"])


@pytest.mark.parametrize("sse", [False, True], ids=["http", "sse"])
def test_each_call_is_listed_with_its_effect_and_its_end(
    around: Surroundings, machine: Machine, sse: bool
) -> None:
    started = machine.start(
        mcp("echo", text="x"),
        mcp("put", text="x"),
        mcp("fail"),
        mcp("write", text="x", seconds=0.3),
        say("Done."),
        place=around.mcp.place(sse=sse),
    )
    run = started.ended()
    assert run["status"] == "succeeded"
    assert run["toolCalls"] == {"total": 4, "effects": 1, "unknown": 0}
    found = listed(started)
    assert [(each["tool"], each["outcome"], each["effect"]) for each in found] == [
        ("echo", "ok", "none"),
        ("put", "ok", "idempotent"),
        ("fail", "error", "idempotent"),
        ("write", "ok", "possible"),
    ]
    assert found[-1]["durationMs"] >= 300
    assert [each["at"] for each in found] == sorted(each["at"] for each in found)


def test_calls_without_an_answer_are_unknown(around: Surroundings, machine: Machine) -> None:
    reset, stalled = around.mcp.place("reset-tools-call"), around.mcp.place("stall-tools-call")
    both = calls(("mcp__trigger__echo", {"text": "x"}), ("mcp__trigger__write", {"text": "x"}))
    broken = machine.start(both, say("Both failed."), place=reset)
    waiting = machine.start(both, say("Never."), place=stalled, timeoutSeconds=20)
    quiet = machine.start(say("I need no tool."))

    assert broken.ended()["toolCalls"] == {"total": 2, "effects": 1, "unknown": 2}
    run = waiting.ended()
    assert (run["status"], run["toolCalls"]["unknown"]) == ("timed_out", run["toolCalls"]["total"])
    assert ("echo", {"text": "x"}) in stalled.calls()
    assert {each["outcome"] for each in [*listed(broken), *listed(waiting)]} == {"unknown"}
    assert quiet.ended()["toolCalls"] == {"total": 0, "effects": 0, "unknown": 0}
    assert listed(quiet) == []
