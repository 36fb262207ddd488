"""A host of a customer's for tests: the published client from npm, unmodified, and what it expects on PATH."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pipedai.env import BASE_DIR
from testing.processes.programs import lacking, program
from testing.processes.web_process import free_port
from testing.processes.worker_process import until

_PINNED = BASE_DIR / "testing" / "processes" / "host_client"
_INSTALL_SECONDS = 120
_OLDEST_NODE = 20
PATIENCE_SECONDS = 90.0


def install_client(directory: Path) -> Path:
    """Installs the client by its lock file, scripts ignored; its `cli.js`. Without npm or registry the test is skipped,
    and in CI it fails."""
    npm = program("npm")
    _check_node()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_PINNED / name, directory)
    done = subprocess.run(  # noqa: S603
        [str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    if done.returncode:
        lacking(f"npm could not install the host client: {done.stderr.strip().splitlines()[:1]}")
    return directory / "node_modules" / "@pipedai" / "orchestrator" / "dist" / "cli.js"


def _check_node() -> None:
    """The client's own words are Node 22; what it uses is there from 20 on."""
    said = subprocess.run(  # noqa: S603
        [str(program("node")), "--version"], capture_output=True, text=True, check=True
    ).stdout
    if int(said.removeprefix("v").partition(".")[0]) < _OLDEST_NODE:
        lacking(f"The host client needs Node {_OLDEST_NODE} or newer, and here is {said.strip()}.")


@dataclass
class Host:
    """A machine with a home of its own, on whose PATH are our worker, a stand-in for claude, and one for npm.

    The client upgrades the worker by npm, where it is not to be had: the stand-in notes what it was asked for.
    """

    home: Path
    cli: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        programs = self.home / "bin"
        programs.mkdir(parents=True)
        agent = BASE_DIR / "agent"
        standin = agent / "pipedai_worker" / "standin.py"
        scripts = {
            "pipedai-worker": f'PYTHONPATH="{agent}" exec "{sys.executable}" -m pipedai_worker "$@"',
            "claude": f'exec "{sys.executable}" "{standin}" "$@"',
            "npm": f'echo "$@" >> "{self.home}/npm.calls"',
        }
        for name, script in scripts.items():
            path = programs / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes see."""
        path = os.pathsep.join([str(self.home / "bin"), os.environ["PATH"]])
        return {"HOME": str(self.home), "PATH": path}

    @property
    def npm_calls(self) -> list[str]:
        """What npm was asked for."""
        return (self.home / "npm.calls").read_text().splitlines()

    @contextmanager
    def begun(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """The client's command line while it runs; its output is one text."""
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
        """The command that enrolls, while it runs."""
        return self.begun("connect", "--api-url", url, "--no-install", "--no-open", *arguments)

    def connect(self, url: str, *arguments: str) -> str:
        """Enrolls, and what the client said of it."""
        with self.connecting(url, *arguments) as process:
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, said
        return said

    @contextmanager
    def daemon(self) -> Iterator["Daemon"]:
        """The daemon, which supervises the workers; stopped with SIGTERM afterwards, with all that it started."""
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
    """The API that the daemon has on its own machine."""

    client: httpx.Client

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            return self.client.get("workers").is_success
        except httpx.TransportError:
            return False

    def worker(self, worker_id: str) -> dict[str, Any]:
        """What it knows of a worker by now. It asks our API whenever it was told to do something."""
        self.client.post(f"workers/{worker_id}/start")
        return self.known(worker_id)

    def known(self, worker_id: str) -> dict[str, Any]:
        """What it knows of a worker, without asking anybody."""
        items: list[dict[str, Any]] = self.client.get("workers").raise_for_status().json()["items"]
        return next((item for item in items if item["id"] == worker_id), {})

    def do(self, action: str, worker_id: str, **body: str) -> Any:
        """Has it do something with a worker."""
        return (
            self.client.post(f"workers/{worker_id}/{action}", json=body).raise_for_status().json()
        )

    def remote_status(self, worker_id: str) -> str | None:
        """What our API told it of a worker."""
        remote = self.worker(worker_id).get("remote") or {}
        status: str | None = remote.get("derivedStatus")
        return status
