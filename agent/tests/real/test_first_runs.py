"""The real CLI takes runs to success in every version and way of paying that is tested."""

from __future__ import annotations

import pytest
from bin import claude

from .conftest import Machines
from .steps import mcp, say
from .test_tool_call_counts import listed
from .working import API_KEY, SUBSCRIPTION

pytestmark = pytest.mark.slow


# The header in which claude pays, and how its value begins.
PAYS = {
    SUBSCRIPTION: ("authorization", "Bearer sk-ant-oat01-"),
    API_KEY: ("x-api-key", "sk-ant-api03-"),
}


@pytest.mark.parametrize(
    ("version", "auth_mode"),
    [(claude.PINNED, SUBSCRIPTION), (claude.PINNED, API_KEY), (claude.NODE_20, SUBSCRIPTION)],
)
def test_a_run_says_something_and_a_run_calls_a_tool(
    machine_of: Machines, version: str, auth_mode: str
) -> None:
    machine = machine_of(version, auth_mode)
    says = machine.start(say("All is well."), prompt="How is it?")
    calls = machine.start(mcp("echo", text="hello"), say("It said hello."))

    ended = says.ended()
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "All is well.")
    assert "How is it?" in says.script.text
    assert says.place.calls() == []
    assert ended["toolCalls"] == {"total": 0, "effects": 0, "unknown": 0}
    assert listed(says) == []
    header, beginning = PAYS[auth_mode]
    sent = {name.lower(): value for name, value in says.script.requests[0].headers.items()}
    assert sent[header].startswith(beginning)

    ended = calls.ended()
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "It said hello.")
    assert calls.place.calls() == [("echo", {"text": "hello"})]
    assert "echo:hello" in calls.script.requests[-1].text
