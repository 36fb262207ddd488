"""Registers the worker, starts it as a process of its own, and waits for the runs that it executes."""

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from pipedai.env import BASE_DIR
from pipedai_worker import __version__, commands
from pipedai_worker.api import Api
from pipedai_worker.identity import CLAUDE_MAX

_STOP_SECONDS = 40.0
_PAUSE_SECONDS = 0.1
# Each question whether a run has ended costs the server a few milliseconds, and runs take seconds.
_PAUSE_OF_A_RUN_SECONDS = 0.5


def register(directory: Path, url: str, token: str, *, max_concurrency: int = 1) -> str:
    """Registers the worker of `working` with a `wrk_` token, as `pipedai-worker register` does. Returns its id."""
    machine = {"hostname": platform.node(), "os": platform.system(), "version": __version__}
    told = {"token": token, "authMode": CLAUDE_MAX, "maxConcurrency": max_concurrency, **machine}
    with contextlib.closing(Api(url)) as api:
        return commands.exchange_token(api, told, directory / "worker.json").worker_id


@contextlib.contextmanager
def working(directory: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs the registered worker for the time of the block, and then stops it with SIGTERM if it still lives.

    Its registration is in `directory`/worker.json, and it logs to `directory`/worker.log.
    """
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    config = str(directory / "worker.json")
    with (directory / "worker.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "pipedai_worker", "run", "--config", config, *arguments],
            cwd=BASE_DIR / "agent",
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
        process.terminate()
        process.wait(_STOP_SECONDS)
    finally:
        process.kill()
        process.wait()


def until(what: Callable[[], Any], *, seconds: float = 60.0, pause: float = _PAUSE_SECONDS) -> Any:
    """Calls `what` until its result is true, and returns that result. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(pause)
    return value


def is_running(api: httpx.Client, run_id: str) -> bool:
    """Whether a worker is executing the run."""
    return bool(api.get(f"/runs/{run_id}").raise_for_status().json()["status"] == "running")


def ended_run(api: httpx.Client, run_id: str) -> Any:
    """Waits until the run has ended, and returns it as the API shows it."""

    def read() -> Any:
        run = api.get(f"/runs/{run_id}").raise_for_status().json()
        return run if run["endedAt"] else None

    return until(read, pause=_PAUSE_OF_A_RUN_SECONDS)
