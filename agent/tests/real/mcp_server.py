"""Starts the real MCP server in a process of its own, and tells what it was asked."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from bin.ending import die_with_parent

_AGENT = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 20


@dataclass(frozen=True)
class McpServer:
    """A server's address. Any number of tests use it, each by keys of its own."""

    origin: str
    log: Path

    def place(self, mode: str = "plain", *, sse: bool = False) -> Place:
        """Return a new place on this server, which misbehaves as `mode` says: see `mcp_modes.py`."""
        return Place(self, mode, "sse" if sse else "mcp")


@dataclass(frozen=True)
class Place:
    """A URL of the server, the secret header that it wants, and what it was asked."""

    server: McpServer
    mode: str
    transport: str
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def url(self) -> str:
        """The URL for a trigger."""
        return f"{self.server.origin}/{self.key}/{self.mode}/{self.transport}"

    @property
    def secret(self) -> str:
        """The secret in the header."""
        return sha256(self.key.encode()).hexdigest()

    @property
    def headers(self) -> dict[str, str]:
        """The headers for a trigger."""
        return {"Authorization": f"Bearer {self.secret}"}

    def requests(self) -> list[dict[str, Any]]:
        """Return what came to this place: see `Front._note` in `mcp_program.py` for the fields."""
        # The last line may still be being written.
        *lines, _ = self.server.log.read_text().split("\n")
        seen = [json.loads(line) for line in lines if self.key in line]
        return [each for each in seen if each["key"] == self.key]

    def calls(self) -> list[tuple[str, Any]]:
        """Return the tools that were called, in order, with their arguments."""
        return [
            (each["name"], each["arguments"])
            for each in self.requests()
            if each["rpc"] == "tools/call"
        ]


@contextmanager
def mcp_server(listener: socket.socket, directory: Path) -> Iterator[McpServer]:
    """Run the server on this listening socket for the time of the block. It logs into the directory."""
    log = directory / "mcp.jsonl"
    log.touch()
    command = [sys.executable, "-m", "tests.real.mcp_program"]
    with (directory / "mcp.out").open("wb") as output:
        process = subprocess.Popen(
            [*command, str(listener.fileno()), str(log)],
            cwd=_AGENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        yield McpServer(f"http://127.0.0.1:{listener.getsockname()[1]}", log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
