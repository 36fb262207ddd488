"""Starts a real authorization server, with the MCP server behind it, in a process of its own (`grant_program.py`)."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bin.ending import die_with_parent

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 90
_STOP_SECONDS = 20
# A client that the server knows without registration: see KNOWN in `grant_program.py`.
KNOWN_ID = "a-known-client"
KNOWN_SECRET = "a-planted-client-secret"  # noqa: S105


@dataclass(frozen=True)
class GrantServer:
    origin: str
    log: Path

    @property
    def url(self) -> str:
        """The URL of the MCP server for a connection."""
        return f"{self.origin}/mcp"

    def control(self, **options: Any) -> None:
        """Changes how the server behaves: see OPTIONS in `grant_program.py`, and `revoke="all"` for `/control`."""
        httpx.post(f"{self.origin}/control", json=options).raise_for_status()

    def agree(self, url: str) -> str:
        """Opens the URL of an authorization as a browser does, and returns the URL to which the server sends it."""
        answer = httpx.get(url)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def requests(self, path: str) -> list[dict[str, Any]]:
        """Returns the requests that came for this path, in order: see `Front.__call__` for the fields."""
        seen = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [each for each in seen if each["path"] == path]

    def asked(self, grant_type: str) -> list[dict[str, Any]]:
        """Returns the requests for tokens by this grant, such as `refresh_token`."""
        return [
            each for each in self.requests("/token") if each["form"]["grant_type"] == grant_type
        ]


@contextmanager
def grant_server(
    directory: Path, *, listener: socket.socket | None = None, **options: Any
) -> Iterator[GrantServer]:
    """Runs the server for the time of the block, on this listening socket or a port of its own. It logs into the
    directory. `options` are those of `grant_program.py`, such as `life=20`.
    """
    own = listener or socket.create_server(("127.0.0.1", 0))
    log = directory / "grants.jsonl"
    log.touch()
    command = [sys.executable, "-m", "testing.processes.grant_program"]
    with (directory / "grants.out").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [*command, str(own.fileno()), str(log), json.dumps(options)],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT / "agent")},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[own.fileno()],
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    port = own.getsockname()[1]
    if listener is None:
        own.close()
    try:
        origin = f"http://127.0.0.1:{port}"
        # The socket has listened since before the process began, so this request waits for it. Those of the service
        # wait for ten seconds only.
        httpx.get(f"{origin}/.well-known/oauth-authorization-server", timeout=_START_SECONDS)
        yield GrantServer(origin, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
