"""Of all secrets of a machine none reaches a model, whatever a run's prompt, its payload or its model tries."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from bin import claude
from testing.processes.worker_process import until

from .attacks import ANYWHERE, AT_THE_BEGINNING, by_the_model, filled
from .conftest import Machines
from .planting import Field, secret
from .steps import Hang, mcp, say
from .working import Machine, Started, Surroundings

pytestmark = pytest.mark.long


def other_run(machine: Machine) -> Started:
    """Start a run that has secrets of its own, and that goes on until it is canceled."""
    own = {name: secret(name) for name in ("prompt", "payload", "result")}
    machine.secrets |= {f"the {name} of another run": value for name, value in own.items()}
    started = machine.start(
        mcp("echo", text=own["result"]), Hang(), prompt=own["prompt"], payload=own["payload"]
    )
    until(lambda: len(started.script.requests) == 2)
    return started


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_no_planted_secret_is_in_a_request(
    around: Surroundings, own_machine: Machines, version: str
) -> None:
    machine = own_machine(version, slots=4)
    field = Field(machine)
    field.plant_before_the_start()
    with machine.working(), field.socket():
        other = other_run(machine)
        field.plant_beside(other)
        beginnings = AT_THE_BEGINNING if version == claude.PINNED else AT_THE_BEGINNING[:1]
        every = "\n".join(
            filled(text, path, home=machine.home) for path in field.files for text in ANYWHERE
        )
        first, *rest = (filled(text, field.files[0], home=machine.home) for text in beginnings)
        texts = [f"{first}\n{every}", *rest]
        payloads = [{"notes": [every[:25_000], *rest], every[-20_000:]: "@"}]
        started = [
            machine.start(say("Read."), prompt=text, payload=payload)
            for text, payload in itertools.zip_longest(texts, payloads)
        ]
        tried = machine.start(*by_the_model(field.files, every[:50_000]), say("I tried."))
        for text, each in zip(texts, started, strict=True):
            run = each.ended(seconds=120)
            # The text reached the model as it is, and claude did nothing of its own with it.
            assert (run["status"], run["shortMessage"]) == ("succeeded", "Read."), text
            assert len(each.script.requests) == 1, text
            told = blocks(each.script.requests[0].content)
            assert "image" not in {block["type"] for block in told}, text
            assert any(text.strip() in str(one.get("text")) for one in told), text
        # A sub-agent may have taken some of the turns.
        assert tried.ended(seconds=120)["status"] == "succeeded"
        assert len(tried.script.requests) > 10
        around.site.post(f"/runs/{other.id}/cancel", {})
        other.ended()
    assert around.messages.leaked(*machine.secrets.values(), but_of=other.script) == []


def blocks(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of everything that the user said in a request."""
    found: list[dict[str, Any]] = []
    for message in content["messages"]:
        inside = message["content"]
        found += [{"type": "text", "text": inside}] if isinstance(inside, str) else inside
    return found
