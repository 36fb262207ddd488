"""Runs the published client from npm, unmodified, as a customer's host would, with the programs that it needs."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pipedai.env import BASE_DIR
from testing.processes.npm import npm_ci
from testing.processes.programs import program
from testing.processes.web_process import free_port
from testing.processes.worker_process import until

_PINNED = BASE_DIR / "testing" / "processes" / "host_client"
PATIENCE_SECONDS = 90.0


def install_client(directory: Path) -> Path:
    """Installs the client by its lock file, and returns its `cli.js`.

    The documentation of the client asks for Node 22, but Node 20 has all that it uses.
    """
    return npm_ci(_PINNED, directory) / "@pipedai" / "orchestrator" / "dist" / "cli.js"


@dataclass
class Host:
    """A host with a home directory of its own. Its PATH has our worker, a stand-in for claude, and one for npm.

    The client upgrades the worker with npm, but npm's registry has no such package. So the stand-in notes each call.
    `claude` names the real one to use instead; `variables` are set for all processes of the host.
    """

    home: Path
    cli: Path
    claude: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        programs = self.home / "bin"
        programs.mkdir(parents=True)
        agent = BASE_DIR / "agent"
        claude = [str(self.claude)]
        if self.claude is None:
            claude = [sys.executable, str(agent / "pipedai_worker" / "standin.py")]
        scripts = {
            "pipedai-worker": f'PYTHONPATH="{agent}" exec "{sys.executable}" -m pipedai_worker "$@"',
            "claude": f'exec {shlex.join(claude)} "$@"',
            "npm": f'echo "$@" >> "{self.home}/npm.calls"',
        }
        for name, script in scripts.items():
            path = programs / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment of the host's processes."""
        path = os.pathsep.join([str(self.home / "bin"), os.environ["PATH"]])
        return {**self.variables, "HOME": str(self.home), "PATH": path}

    @property
    def npm_calls(self) -> list[str]:
        """Returns the noted calls of npm."""
        return (self.home / "npm.calls").read_text().splitlines()

    @contextmanager
    def begun(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """Runs the client's command line for the time of the block. Both outputs go to one text stream."""
        process = subprocess.Popen(  # noqa: S603
            [str(program("node")), str(self.cli), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def connecting(
        self, url: str, *arguments: str
    ) -> AbstractContextManager["subprocess.Popen[str]"]:
        """Runs the command that enrolls the host, for the time of the block."""
        return self.begun("connect", "--api-url", url, "--no-install", "--no-open", *arguments)

    def connect(self, url: str, *arguments: str) -> str:
        """Enrolls the host, and returns the client's output."""
        with self.connecting(url, *arguments) as process:
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, said
        return said

    def carry_out(self, *command: str, given: str = "") -> str:
        """Runs a program of the host's PATH, or the client's command line for `pipedai-orchestrator`, to its end.

        `given` is what it reads from stdin. Returns both outputs. Raises AssertionError if it fails.
        """
        name, *arguments = command
        found = {"pipedai-orchestrator": [str(program("node")), str(self.cli)]}.get(
            name, [str(self.home / "bin" / name)]
        )
        done = subprocess.run(  # noqa: S603
            [*found, *arguments],
            env=self.environment,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @contextmanager
    def daemon(self) -> Iterator["Daemon"]:
        """Runs the daemon that supervises the workers for the time of the block, and then stops it with SIGTERM.

        All processes that it started are stopped too.
        """
        with (self.home / "daemon.log").open("ab") as output:
            process = subprocess.Popen(  # noqa: S603
                [str(program("node")), str(self.cli), "start", "--port", str(self.port)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            credentials = self.home / ".pipedai" / "orchestrator" / "credentials.json"
            token = json.loads(credentials.read_text())["localToken"]
            with httpx.Client(
                base_url=f"http://127.0.0.1:{self.port}/api",
                headers={"Authorization": f"Bearer {token}"},
                timeout=PATIENCE_SECONDS,
            ) as client:
                daemon = Daemon(client)
                until(daemon.answers)
                yield daemon
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@dataclass
class Daemon:
    """Calls the API that the daemon offers on its own machine."""

    client: httpx.Client

    def answers(self) -> bool:
        """Whether the daemon's API answers."""
        try:
            return self.client.get("workers").is_success
        except httpx.TransportError:
            return False

    def worker(self, worker_id: str) -> dict[str, Any]:
        """Makes the daemon ask our API about its workers, and returns what it then knows about one."""
        self.client.post(f"workers/{worker_id}/start")
        return self.known(worker_id)

    def known(self, worker_id: str) -> dict[str, Any]:
        """Returns what the daemon knows about a worker, without asking our API."""
        items: list[dict[str, Any]] = self.client.get("workers").raise_for_status().json()["items"]
        return next((item for item in items if item["id"] == worker_id), {})

    def do(self, action: str, worker_id: str, **body: str) -> Any:
        """Tells the daemon to perform an action on a worker."""
        return (
            self.client.post(f"workers/{worker_id}/{action}", json=body).raise_for_status().json()
        )

    def remote_status(self, worker_id: str) -> str | None:
        """Returns the status of a worker that our API told the daemon."""
        remote = self.worker(worker_id).get("remote") or {}
        status: str | None = remote.get("derivedStatus")
        return status
