"""No run's claude reads or changes the worker's own files, even where the account's settings allow it every file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bin import claude

from pipedai_worker.conformance.fake_api import FakeApi

from . import installed
from .lone_machine import LoneMachine
from .mcp_server import McpServer
from .messages_api import MessagesApi
from .network import LoopbackNetwork
from .scenes import Scene
from .steps import calls, say

pytestmark = pytest.mark.long

RULES = [{"tools": "*", "when": "always"}]


@pytest.mark.parametrize("version", claude.VERSIONS)
@pytest.mark.parametrize("rules", [None, RULES], ids=["free", "gated"])
def test_a_run_reads_neither_the_workers_token_nor_its_state(
    api_at: tuple[FakeApi, str],
    network: LoopbackNetwork,
    messages: MessagesApi,
    mcp: McpServer,
    tmp_path: Path,
    version: str,
    rules: Any,
) -> None:
    api, url = api_at
    # Claude takes a path for a pattern, in which these characters have a meaning.
    directory = tmp_path / "a (b) [c] {d} !e"
    cli = installed.cli(version)
    machine = LoneMachine(network, messages, directory, cli, api, url)
    config, link = machine.home / "worker.json", machine.home / "link.json"
    others, free = machine.home / ".pipedai" / "worker.json", machine.home / "free.txt"
    state = machine.sessions.parent / "outcomes" / "planted.txt"
    others.parent.mkdir()
    state.parent.mkdir(parents=True)
    others.write_text("planted-other")
    state.write_text("planted-state")
    free.write_text("planted-free")
    link.symlink_to(config)
    allowed = {"allow": ["Read", "Edit", "Write", "Glob", "Grep"], "additionalDirectories": ["/"]}
    own = machine.home / ".claude" / "settings.json"
    own.parent.mkdir()
    own.write_text(json.dumps({"permissions": allowed}))
    reads = [("Read", {"file_path": str(path)}) for path in (config, link, others, state)]
    searches = [
        ("Grep", {"pattern": "wkt_|planted", "path": str(path), "output_mode": "content"})
        for path in (machine.home, config, state.parent, others.parent)
    ]
    edit = {"file_path": str(config), "old_string": "workerToken", "new_string": "none"}
    writes = [("Edit", edit), ("Write", {"file_path": str(state), "content": "changed"})]
    steps = (
        calls(("Read", {"file_path": str(free)})),
        calls(*reads),
        calls(*searches),
        calls(*writes),
        say("I tried."),
    )
    here = Scene(machine, api, mcp.place(), messages.script(*steps))
    with machine.working():
        run = here.add(rules=rules)
        ended = api.until_ended(run)
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "I tried.")
    # The account's settings let claude read what is not the worker's.
    assert "planted-free" in here.script.text
    for secret in (api.worker_token, "planted-other", "planted-state"):
        assert secret not in here.script.text
    assert json.loads(config.read_text())["workerToken"] == api.worker_token
    assert state.read_text() == "planted-state"
