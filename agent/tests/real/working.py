"""Runs the real worker with the real CLI inside the network, and hands it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from bin.ending import die_with_parent
from testing.processes.worker_process import until

from pipedai_worker.disk.spool import SUFFIX
from pipedai_worker.identity import WorkerConfig
from tests.conftest import DEADLINE_SECONDS, python_path
from tests.warm_workers import WARNINGS

from . import installed
from .mcp_server import McpServer, Place
from .messages_api import MessagesApi, Script
from .network import LoopbackNetwork
from .site import Site
from .steps import Step

SUBSCRIPTION, API_KEY = "claude_max", "api_key"
# How claude logs in for each way of paying, and how such a secret begins.
_CREDENTIALS = {
    SUBSCRIPTION: ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-"),
    API_KEY: ("ANTHROPIC_API_KEY", "sk-ant-api03-"),
}
_STOP_SECONDS = 60
# Asking the API for a run costs some 5 ms of CPU time, and a run with claude takes seconds.
_PAUSE_SECONDS = 1


@dataclass(frozen=True)
class Surroundings:
    """What is there for all scenarios: the network, and what listens in it."""

    network: LoopbackNetwork
    site: Site
    messages: MessagesApi
    mcp: McpServer


@dataclass
class Machine:
    """A machine that executes runs: a home directory, the CLI, and a registered worker.

    `secrets` are planted in the worker's files and environment: none may reach a model.
    """

    around: Surroundings
    directory: Path
    cli: Path
    auth_mode: str = SUBSCRIPTION
    slots: int = 4
    # False leaves it to the API to tell the worker how it is paid for.
    tells_auth_mode: bool = True
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        registered = self.around.site.register_worker(
            auth_mode=self.auth_mode, max_concurrency=self.slots
        )
        self.worker_id = str(registered["workerId"])
        self.home = self.directory / "home"
        self.temporary = self.directory / "tmp"
        for each in (self.home, self.temporary):
            each.mkdir(parents=True)
        self.config = self.home / ".pipedai" / "worker.json"
        token = registered["workerToken"]
        WorkerConfig(self.worker_id, token, self.around.site.url, "").save(self.config)
        self.log_path = self.directory / "worker.log"
        variable, beginning = _CREDENTIALS[self.auth_mode]
        self.secrets |= {
            "the worker's token": token,
            "a variable of the worker": f"planted-variable-{uuid4().hex}",
            variable: beginning + uuid4().hex * 2,
        }
        self._credential = variable

    @property
    def log(self) -> str:
        """What the worker has logged."""
        return self.log_path.read_text()

    @contextmanager
    def settled(self, **settings: object) -> Iterator[None]:
        """Give claude these settings of the account for the runs of the block."""
        path = self.home / ".claude" / "settings.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(settings))
        try:
            yield
        finally:
            path.unlink()

    def allowing(self, *tools: str) -> AbstractContextManager[None]:
        """Allow claude's own tools in these settings, as an operator would."""
        return self.settled(permissions={"allow": list(tools)})

    @contextmanager
    def working(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the worker for the time of the block, and then stop it with SIGTERM if it still lives."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": python_path(),
            "ANTHROPIC_BASE_URL": self.around.messages.url,
            "PIPEDAI_LOCAL_RUN_EVENTS": "1",
            "PLANTED": self.secrets["a variable of the worker"],
            self._credential: self.secrets[self._credential],
            installed.NO_COLLECTION: "0",
            **variables,
        }
        command = [sys.executable, *WARNINGS, "-m", "pipedai_worker", "run"]
        command += ["--config", str(self.config), "--claude", str(self.cli)]
        if self.tells_auth_mode:
            command += ["--auth-mode", self.auth_mode]
        command += ["--pass-env", installed.NO_COLLECTION]
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                self.around.network.inside([*command, *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        try:
            yield process
            process.terminate()
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()

    def start(
        self,
        *steps: Step,
        prompt: str = "Do what the test says.",
        payload: Any = None,
        place: Place | None = None,
        **trigger: Any,
    ) -> Started:
        """Queue a run to which the Messages API answers with these steps. It begins when the worker has a free slot.

        `place` is its MCP server; without one it has a server that works. Other values are the trigger's.
        """
        script = self.around.messages.script(*steps)
        place = place or self.around.mcp.place()
        values: dict[str, Any] = {
            "prompt": prompt,
            "model": script.model,
            "workerId": self.worker_id,
        }
        values |= {"mcpUrl": place.url, "mcpHeaders": place.headers, **trigger}
        run_id = self.around.site.queue(payload, **values)
        return Started(self, run_id, script, place)

    def run(self, *steps: Step, **rest: Any) -> dict[str, Any]:
        """Do the same, and return the run as the API shows it when it has ended."""
        return self.start(*steps, **rest).ended()


@dataclass(frozen=True)
class Started:
    """One run: its script, its MCP server, and what the API and the worker's machine tell of it."""

    machine: Machine
    id: str
    script: Script
    place: Place

    def shown(self) -> dict[str, Any]:
        """Return the run as the API shows it now."""
        shown: dict[str, Any] = self.machine.around.site.get(f"/runs/{self.id}")
        return shown

    def ended(self, seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
        """Wait until the run has ended, and return it as the API shows it. Raises AssertionError after `seconds`."""
        try:
            ended = until(
                lambda: (run := self.shown())["endedAt"] and run,
                seconds=seconds,
                pause=_PAUSE_SECONDS,
            )
            return dict(ended)
        except AssertionError as late:
            raise AssertionError(f"The run did not end. {late}\n{self.machine.log}") from None

    def events(self) -> list[dict[str, Any]]:
        """Return what the CLI has told so far, event by event, as the worker wrote it down."""
        runs = self.machine.home / ".pipedai" / "runs" / self.machine.worker_id
        with contextlib.suppress(FileNotFoundError):
            lines = (runs / f"{self.id}{SUFFIX}").read_text().splitlines()
            return [json.loads(line)["payload"] for line in lines]
        return []
