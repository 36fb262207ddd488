"""The real CLI takes runs to success in every version and way of paying that is tested."""

from __future__ import annotations

import pytest
from bin import claude

from .conftest import Machines
from .steps import mcp, say
from .working import API_KEY, SUBSCRIPTION

pytestmark = pytest.mark.long


# The header in which claude pays, and how its value begins.
PAYS = {
    SUBSCRIPTION: ("authorization", "Bearer sk-ant-oat01-"),
    API_KEY: ("x-api-key", "sk-ant-api03-"),
}


@pytest.mark.parametrize(
    ("version", "auth_mode"),
    [(claude.PINNED, SUBSCRIPTION), (claude.PINNED, API_KEY), (claude.NODE_20, SUBSCRIPTION)],
)
def test_a_run_calls_a_tool_and_is_paid_for_as_the_machine_says(
    machine_of: Machines, version: str, auth_mode: str
) -> None:
    machine = machine_of(version, auth_mode)
    started = machine.start(mcp("echo", text="hello"), say("It said hello."), prompt="How is it?")
    ended = started.ended()
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "It said hello.")
    assert "How is it?" in started.script.text
    assert started.place.calls() == [("echo", {"text": "hello"})]
    assert "echo:hello" in started.script.requests[-1].text
    header, beginning = PAYS[auth_mode]
    sent = {name.lower(): value for name, value in started.script.requests[0].headers.items()}
    assert sent[header].startswith(beginning)
