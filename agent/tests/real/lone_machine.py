"""A machine whose worker executes runs with the real CLI, and speaks with a fake of the API that a test controls."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from bin.ending import die_with_parent
from testing.processes.worker_process import until

from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.conformance.serving import Handler
from pipedai_worker.identity import WorkerConfig, state_directory
from tests.conftest import python_path
from tests.warm_workers import WARNINGS

from . import installed
from .messages_api import MessagesApi
from .network import LoopbackNetwork

_STOP_SECONDS = 60


class LoneMachine:
    """A home directory with a registered worker, whose processes a test starts and kills."""

    def __init__(
        self,
        network: LoopbackNetwork,
        messages: MessagesApi,
        directory: Path,
        cli: Path,
        api: FakeApi,
        url: str,
        name: str = "worker",
    ) -> None:
        self._network = network
        self._cli = cli
        self.home = directory / "home"
        self.temporary = directory / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(parents=True, exist_ok=True)
        self._config = self.home / f"{name}.json"
        WorkerConfig(api.worker_id, api.worker_token, url, "").save(self._config)
        self.sessions = state_directory(self._config) / api.worker_id / "sessions"
        self._log = directory / f"{name}.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": python_path(),
            "ANTHROPIC_BASE_URL": messages.url,
            "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-lone",
            installed.NO_COLLECTION: "0",
        }

    def use(self, package: Path) -> None:
        """Have the worker run the package in this directory."""
        self._environment["PYTHONPATH"] = f"{package}{os.pathsep}{python_path()}"

    @property
    def log(self) -> str:
        """What the worker has logged."""
        return self._log.read_text()

    def left(self) -> list[Path]:
        """Return what runs have left on the machine of their sessions and in the temporary directory."""
        conversations = self.home.glob(".claude/projects/*")
        return [*self.sessions.iterdir(), *conversations, *self.temporary.glob("pipedai-run-*")]

    def tidied(self) -> None:
        """Wait until runs have left nothing on the machine. Raises AssertionError that names what they left."""
        with contextlib.suppress(AssertionError):
            until(lambda: not self.left())
        assert not self.left(), f"left: {self.left()}\n{self.log}"

    @contextmanager
    def working(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the worker for the time of the block, and then stop it with SIGTERM if it still lives."""
        command = [sys.executable, *WARNINGS, "-m", "pipedai_worker", "run"]
        command += ["--config", str(self._config), "--claude", str(self._cli)]
        command += ["--pass-env", installed.NO_COLLECTION, *arguments]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._network.inside(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=self._environment,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        try:
            yield process
            process.terminate()
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


@contextmanager
def fake_api(network: LoopbackNetwork) -> Iterator[tuple[FakeApi, str]]:
    """Serve a fake API inside the network for the time of the block, and yield it with its URL there."""
    api, listener = FakeApi(), network.listener()
    with _Server(api, listener) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield api, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with api.lock:
                api.closing = True
                api.lock.notify_all()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    """Serves the fake API on a socket that listens already."""

    daemon_threads = True

    def __init__(self, api: FakeApi, listener: socket.socket) -> None:
        self.api = api
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a worker that is killed breaks its connections."""
