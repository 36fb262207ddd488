"""Provides a fake API, and real worker processes that talk to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testing.processes.warm_start import WORKER, worker_path

from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.conformance.serving import serving
from pipedai_worker.identity import WorkerConfig, state_directory

AGENT = Path(__file__).resolve().parent.parent
# The deadline is long because a busy machine may stand still for seconds. A test that passes seldom waits so long.
DEADLINE_SECONDS = 60.0

# What the outcome of a run says that called no tool.
NO_CALLS = {"toolCalls": {"total": 0, "effects": 0, "unknown": 0}}


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def url(api: FakeApi) -> Iterator[str]:
    with serving(api) as address:
        yield address


class Worker:
    """A worker process. `log` is the file that it logs to."""

    def __init__(self, directory: Path, arguments: list[str], variables: dict[str, str]) -> None:
        self.log_path = directory / f"worker-{time.monotonic_ns()}.log"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "TMPDIR": str(directory / "tmp"),
            "PYTHONPATH": worker_path(),
            **variables,
        }
        (directory / "tmp").mkdir(exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = WORKER.start(
                ["-m", "pipedai_worker", *arguments],
                environment=environment,
                output=log.fileno(),
                directory=directory,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for the process to end, and return its exit code."""
        return self.process.wait(seconds)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def until_logged(self, text: str, seconds: float = DEADLINE_SECONDS) -> None:
        until(lambda: text in self.log, seconds, lambda: self.log)


class Workers:
    """Starts workers that share one registration, as an operator would."""

    def __init__(self, directory: Path, api: FakeApi, url: str) -> None:
        self.directory = directory
        self.config_path = directory / "worker.json"
        self.started: list[Worker] = []
        WorkerConfig(api.worker_id, api.worker_token, url, "").save(self.config_path)
        self.state = state_directory(self.config_path) / api.worker_id

    def start(self, *arguments: str, **variables: str) -> Worker:
        """Start `pipedai-worker run`, with the stand-in for claude unless the arguments say otherwise."""
        executor = () if "--command" in arguments else ("--stand-in",)
        return self.execute("run", "--config", "worker.json", *executor, *arguments, **variables)

    def execute(self, *arguments: str, **variables: str) -> Worker:
        worker = Worker(self.directory, list(arguments), variables)
        self.started.append(worker)
        return worker

    def files(self, folder: str) -> list[dict[str, Any]]:
        """Return the files in one folder of the state directory."""
        found = []
        for path in (self.state / folder).glob("*.json"):
            # The worker may remove the file meanwhile.
            with contextlib.suppress(FileNotFoundError):
                found.append(json.loads(path.read_text()))
        return found

    def leftovers(self) -> list[str]:
        """Return the files that runs left in the temporary directory."""
        return [path.name for path in (self.directory / "tmp").iterdir()]


@pytest.fixture
def workers(tmp_path: Path, api: FakeApi, url: str) -> Iterator[Workers]:
    workers = Workers(tmp_path, api, url)
    yield workers
    for worker in workers.started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def until(
    what: Callable[[], Any],
    seconds: float = DEADLINE_SECONDS,
    explain: Callable[[], str] = lambda: "",
    pause: float = 0.05,
) -> Any:
    """Wait until the call returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s. {explain()}"
        time.sleep(pause)
    return value


def program_that_waits_for(path: Path) -> str:
    """Return a `--command` whose program ends with exit code 0 as soon as this file exists."""
    return f"sh -c 'until [ -e {path} ]; do sleep 0.05; done'"


def alive(pid: int) -> bool:
    """Tell whether a process is running. One that has ended and waits to be reaped is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}
