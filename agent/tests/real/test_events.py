"""What the real CLI tells becomes events of the run, without the secrets that it repeats."""

from __future__ import annotations

import json

import pytest
from bin import claude

from .conftest import Machines
from .reply import Message
from .steps import Status, Turn, bash, say
from .working import Surroundings

pytestmark = pytest.mark.long


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_what_the_cli_does_is_told(
    around: Surroundings, machine_of: Machines, version: str
) -> None:
    place = around.mcp.place()
    echo = (("mcp__trigger__echo", {"text": f"It is {place.secret}."}),)
    started = machine_of(version).start(
        Status(529, times=2),
        Turn(Message("I look it up.", calls=echo)),
        bash("date"),
        say("Done."),
        place=place,
        recordEvents="always",
    )
    assert started.ended()["status"] == "succeeded"
    events = around.site.get(f"/runs/{started.id}/events?limit=200")["items"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert place.secret not in json.dumps(events)
    told = [(event["type"], event["text"]) for event in events if event["type"] != "status"]
    assert [kind for kind, _ in told] == [
        *("message", "tool_call", "tool_result", "tool_call", "tool_result", "message", "result")
    ]
    assert told[0] == ("message", "I look it up.")
    assert told[1] == ("tool_call", "echo")
    assert "It is [redacted]." in told[2][1]
    assert told[3] == ("tool_call", "Bash")
    assert told[-2:] == [("message", "Done."), ("result", "Done.")]
    statuses = [event["data"] for event in events if event["type"] == "status"]
    assert [status["subtype"] for status in statuses[:3]] == ["init", "api_retry", "api_retry"]
    assert (statuses[0]["version"], statuses[1]["errorStatus"]) == (version, 529)
    kinds = [event["type"] for event in events]
    call, answer = (events[kinds.index(kind)] for kind in ("tool_call", "tool_result"))
    assert call["data"]["callId"] == answer["data"]["callId"]
    assert call["data"]["input"] == {"text": "It is [redacted]."}
