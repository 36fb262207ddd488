"""The API tells of every tool call that a run's CLI made: how many, what they could change, and how they ended."""

from __future__ import annotations

from typing import Any

import pytest

from .steps import calls, say
from .working import Machine, Started, Surroundings

pytestmark = pytest.mark.long


def listed(started: Started) -> list[dict[str, Any]]:
    """Return the calls of a run as the API lists them."""
    answer = started.machine.around.site.get(f"/runs/{started.id}/tool-calls")
    return list(answer["items"])


def test_calls_without_an_answer_are_unknown(around: Surroundings, machine: Machine) -> None:
    stalled = around.mcp.place("stall-tools-call")
    both = calls(("mcp__trigger__echo", {"text": "x"}), ("mcp__trigger__write", {"text": "x"}))
    waiting = machine.start(both, say("Never."), place=stalled, timeoutSeconds=20)
    run = waiting.ended()
    assert (run["status"], run["toolCalls"]["unknown"]) == ("timed_out", run["toolCalls"]["total"])
    assert ("echo", {"text": "x"}) in stalled.calls()
    assert {each["outcome"] for each in listed(waiting)} == {"unknown"}
