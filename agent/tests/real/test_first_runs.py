"""The real CLI takes runs to success in every version and way of paying that is tested."""

from __future__ import annotations

import pytest
from bin import claude

from .conftest import Machines
from .steps import mcp, say
from .working import API_KEY, SUBSCRIPTION

pytestmark = pytest.mark.slow


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

    ended = calls.ended()
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "It said hello.")
    assert calls.place.calls() == [("echo", {"text": "hello"})]
    assert "echo:hello" in calls.script.requests[-1].text


@pytest.mark.parametrize(
    ("auth_mode", "header", "beginning"),
    [
        (SUBSCRIPTION, "Authorization", "Bearer sk-ant-oat01-"),
        (API_KEY, "x-api-key", "sk-ant-api03-"),
    ],
)
def test_the_cli_pays_as_the_machine_does(
    machine_of: Machines, auth_mode: str, header: str, beginning: str
) -> None:
    started = machine_of(auth_mode=auth_mode).start(say("Paid."))
    assert started.ended()["status"] == "succeeded"
    sent = {name.lower(): value for name, value in started.script.requests[0].headers.items()}
    assert sent[header.lower()].startswith(beginning)
