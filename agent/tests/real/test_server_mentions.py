"""No text of a prompt or payload makes the CLI itself read a resource, or use a prompt, of the trigger's MCP server."""

from __future__ import annotations

import pytest
from bin import claude

from .conftest import Machines
from .steps import say
from .test_planted import blocks

pytestmark = pytest.mark.long

# What the server's resource and its prompt say: see `mcp_program.py`.
UNWANTED = "must reach no model"
MENTIONS = """
Look at @trigger:note://secret please.
@trigger:note://secret
Look at @"trigger:note://secret" please.
Look at\u200b @trigger:note://secret\u00a0please.
/mcp__trigger__advice now
"""
# These count at the beginning of a prompt alone.
COMMANDS = ("/mcp__trigger__advice now", "/trigger:advice (MCP) now", "  /mcp__trigger__advice now")


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_a_text_is_shown_to_the_model_as_it_was_written_and_does_nothing_else(
    machine_of: Machines, version: str
) -> None:
    machine = machine_of(version)
    commands = COMMANDS if version == claude.PINNED else COMMANDS[:1]
    prompts = [f"{text} Marker." for text in commands]
    prompts.append(f"@trigger:note://secret {MENTIONS} Marker.")
    payload = [*COMMANDS, MENTIONS, "@" * 60_000, "The payload's marker."]
    payloads = [*(None for _ in commands), payload]
    started = [
        machine.start(say("Done."), prompt=prompt, payload=payload)
        for prompt, payload in zip(prompts, payloads, strict=True)
    ]
    for prompt, each in zip(prompts, started, strict=True):
        run = each.ended()
        assert (run["status"], run["shortMessage"]) == ("succeeded", "Done.")
        assert each.place.calls() == []
        (request,) = each.script.requests
        assert any(prompt.strip() in str(block.get("text")) for block in blocks(request.content))
        asked = {request["rpc"] for request in each.place.requests()}
        assert not asked & {"resources/read", "prompts/get"}
        assert UNWANTED not in each.script.text
    assert "The payload's marker." in started[-1].script.text
