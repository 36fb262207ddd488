"""The scripted model that a person can try calls a tool, gives an output, and says that it is done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pipedai_worker.stand_in.conversation import sample
from tests.warm_workers import AGENT

SCHEMA = {
    "type": "object",
    "properties": {
        "word": {"type": "string"},
        "count": {"type": ["integer", "null"]},
        "colour": {"enum": ["red", "blue"]},
        "many": {"type": "array", "items": {"type": "string"}},
    },
}


def test_a_sample_has_every_property_of_a_schema() -> None:
    assert sample(SCHEMA) == {"word": "scripted", "count": 1, "colour": "red", "many": []}


@pytest.mark.long
def test_it_plays_one_conversation_from_its_start_to_its_end(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.real.serve"],
        cwd=AGENT,
        env={**os.environ, "PYTHONPATH": f"{AGENT.parent}:{AGENT}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            told = (re.search(r"ANTHROPIC_BASE_URL=(\S+)", line) for line in process.stdout)
            url = next(found[1] for found in told if found)
            assert played(url) == ["mcp__trigger__echo", "StructuredOutput", "It is done."]
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def played(url: str) -> list[str]:
    """Ask until the model calls no tool any more, and return the tools and the last text."""
    tools = [
        {"name": "mcp__trigger__echo", "input_schema": {}},
        {"name": "StructuredOutput", "input_schema": SCHEMA},
    ]
    messages: list[dict[str, object]] = [{"role": "user", "content": "Go."}]
    heard: list[str] = []
    while len(heard) < 5:
        body = {"model": "claude", "messages": messages, "tools": tools}
        (block,) = httpx.post(f"{url}/v1/messages", json=body).raise_for_status().json()["content"]
        heard.append(block.get("name") or block["text"])
        if block["type"] == "text":
            break
        result = {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
        messages += [
            {"role": "assistant", "content": [block]},
            {"role": "user", "content": [result]},
        ]
    return heard
