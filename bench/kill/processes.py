"""The processes that are killed: each is started again a while later, as a supervisor would."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bench.cast import Pair
from bench.failure import BenchFailed
from bench.http_client import HOST
from bench.kill import program
from bench.stack import Database, Web
from bin.ending import die_with_parent
from pipedai import env

_STOP_SECONDS = 40.0


class Kept:
    """A `manage.py` process that is started again after each kill, by `tend`."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._arguments = arguments
        self._environment = environment
        self._log = log
        self._back_at: float | None = None
        self._process = self._start()

    @property
    def is_there(self) -> bool:
        """Whether it has been started and not been killed since."""
        return self._back_at is None

    def kill(self, *, away: float) -> bool:
        """kill -9, for so many seconds. False if it is away already. Raises BenchFailed."""
        if not self.is_there:
            return False
        if self._process.poll() is not None:
            said = self._log.read_text()[-2000:]
            raise BenchFailed(f"{self._arguments[0]} ended by itself:\n{said}")
        self._process.kill()
        self._process.wait()
        self.killed()
        self._back_at = time.monotonic() + away
        return True

    def killed(self) -> None:
        """Look at what it left behind, before its successor does."""

    def tend(self) -> None:
        """Start it again if it is time."""
        if self._back_at is not None and time.monotonic() >= self._back_at:
            self._back_at = None
            self._process = self._start()

    def stop(self) -> None:
        """SIGTERM, and if that does not help kill -9. Raises BenchFailed for that, or a bad exit code."""
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.end()
            raise BenchFailed(f"{self._arguments[0]} does not stop at SIGTERM.") from None
        if code:
            raise BenchFailed(f"{self._arguments[0]} exited with {code} at SIGTERM.")

    def end(self) -> None:
        """kill -9, for good."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "manage.py", *self._arguments],
                cwd=env.BASE_DIR,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is not for it
                preexec_fn=die_with_parent(signal.SIGKILL),
            )


class Worker(Kept):
    """`manage.py runworker` with a program that writes down what it executes."""

    def __init__(self, on: Database, port: int, pair: Pair, number: int, capacity: int) -> None:
        self.directory = on.directory / f"worker-{number}"
        self.directory.mkdir(mode=0o700)
        self._state = self.directory / "worker.state" / pair.worker_id
        self.temporary = self.directory / "tmp"
        self.temporary.mkdir()
        # What was in hand, and what was reached and not yet reported, when it was killed.
        self.interrupted: set[str] = set()
        self.reached: dict[str, dict[str, Any]] = {}
        config = self.directory / "worker.json"
        registration = {
            "workerId": pair.worker_id,
            "workerToken": pair.worker_token,
            "apiUrl": f"http://{HOST}:{port}",
            "workspaceId": "",
            "isPool": False,
        }
        config.touch(mode=0o600)
        config.write_text(json.dumps(registration))
        self.executed = self.directory / "executed"
        command = [sys.executable, "-I", "-S", str(Path(program.__file__)), str(self.executed)]
        super().__init__(
            ["runworker", "--config", str(config), "--command", shlex.join(command),
             "--max-concurrency", str(capacity)],
            {**on.environment, "TMPDIR": str(self.temporary)},
            self.directory / "log",
        )  # fmt: skip

    def killed(self) -> None:
        """Keep what its journal says at this moment."""
        self.interrupted |= set(self.spooled("held"))
        # The first word on a run counts: a later one would be a mistake of the worker's.
        self.reached = {**self.spooled("outcomes"), **self.reached}

    def spooled(self, folder: str) -> dict[str, dict[str, Any]]:
        """What its state directory holds in a folder, by run."""
        found = {}
        for file in (self._state / folder).glob("*.json"):
            with suppress(FileNotFoundError):  # settled at this moment
                found[file.stem] = json.loads(file.read_text())
        return found


class Scheduler(Kept):
    """`manage.py runscheduler`."""

    def __init__(self, on: Database) -> None:
        super().__init__(["runscheduler"], on.environment, on.directory / "scheduler.log")


def kill_web_process(served: Web, which: int) -> bool:
    """kill -9 of one process that serves requests; gunicorn starts another."""
    children = psutil.Process(served.pid).children()
    if not children:
        return False
    children[which % len(children)].kill()
    return True


def kill_postgres(on: Database) -> bool:
    """kill -9 of PostgreSQL's main process; whoever needs it next starts it again."""
    pid = on.running_pid
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    return True
