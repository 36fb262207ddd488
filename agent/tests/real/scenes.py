"""A machine with the real CLI and a fake API, and the runs of one trigger on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipedai_worker.conformance.fake_api import FakeApi, FakeRun

from .lone_machine import LoneMachine
from .mcp_server import Place
from .messages_api import Script


class Scene:
    """One machine, and the runs of one trigger on it, which share a script and an MCP server."""

    def __init__(self, machine: LoneMachine, api: FakeApi, place: Place, script: Script) -> None:
        self.machine, self.api, self.place, self.script = machine, api, place, script

    def add(self, **fields: Any) -> FakeRun:
        values: dict[str, Any] = {"retry_mode": "resume", "timeout_seconds": 300, **fields}
        where = {"mcp_url": self.place.url, "mcp_headers": self.place.headers}
        return self.api.add("Write it.", model=self.script.model, **where, **values)

    def retry(self, run: FakeRun, **fields: Any) -> FakeRun:
        session_id = (run.outcome or {})["sessionId"]
        return self.add(resume_session_id=session_id, **fields)

    def conversation(self) -> Path:
        (found,) = self.machine.home.glob(".claude/projects/*/*.jsonl")
        return found


Scenes = Callable[..., Scene]
