"""The processes that the benchmark kills. It starts each again a while later, as a supervisor would."""

import json
import math
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
from bench.kill import program
from bin.ending import die_with_parent
from pipedai import env
from testing.processes.failure import ProcessFailed
from testing.processes.stack import HOST, Database, Web

_STOP_SECONDS = 40.0
# Where Python finds the worker's package, which does not belong to the service.
_WORKER = os.pathsep.join(filter(None, [str(env.BASE_DIR / "agent"), os.environ.get("PYTHONPATH")]))


class Kept:
    """A Python process that is started again after each kill, by `tend`. `name` is what errors call it."""

    def __init__(
        self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self._name = name
        self._arguments = arguments
        self._environment = environment
        self._log = log
        self._back_at: float | None = None
        self._process = self._start()

    @property
    def is_there(self) -> bool:
        """Whether it has been started and has not been killed since."""
        return self._back_at is None

    @property
    def is_lost(self) -> bool:
        """Whether it was killed and stays away until `come_back` is called."""
        return self._back_at == math.inf

    def kill(self, *, away: float) -> bool:
        """Kill it (kill -9) and keep it away for so many seconds. Returns False if it is away. Raises ProcessFailed."""
        if not self.is_there:
            return False
        if self._process.poll() is not None:
            said = self._log.read_text()[-2000:]
            raise ProcessFailed(f"{self._name} ended by itself:\n{said}")
        self._process.kill()
        self._process.wait()
        self.killed()
        self._back_at = time.monotonic() + away
        return True

    def killed(self) -> None:
        """Do what must be done after a kill and before the restart. Subclasses override it."""

    def tend(self) -> None:
        """Start it again if it has been away for long enough."""
        if self._back_at is not None and time.monotonic() >= self._back_at:
            self._back_at = None
            self._process = self._start()

    def come_back(self) -> None:
        """Let the next `tend` start it again, however long it was to be away."""
        self._back_at = 0.0

    def stop(self) -> None:
        """Send SIGTERM, and kill -9 if it does not end. Raises ProcessFailed in that case, or for a bad exit code."""
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.end()
            raise ProcessFailed(f"{self._name} does not stop at SIGTERM.") from None
        if code:
            raise ProcessFailed(f"{self._name} exited with {code} at SIGTERM.")

    def end(self) -> None:
        """Kill it (kill -9) and don't start it again."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=env.BASE_DIR,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so a Ctrl-C does not reach it
                preexec_fn=die_with_parent(signal.SIGKILL),
            )


class Worker(Kept):
    """`pipedai-worker run` with a program that records what it executes."""

    def __init__(self, on: Database, port: int, pair: Pair, number: int, capacity: int) -> None:
        self.directory = on.directory / f"worker-{number}"
        self.directory.mkdir(mode=0o700)
        self._state = self.directory / "worker.state" / pair.worker_id
        self.temporary = self.directory / "tmp"
        self.temporary.mkdir()
        # At its kills: the runs that it was executing, and the outcomes that it had and had not reported yet.
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
            "A worker",
            ["-m", "pipedai_worker", "run", "--config", str(config),
             "--command", shlex.join(command), "--max-concurrency", str(capacity)],
            {**on.environment, "TMPDIR": str(self.temporary), "PYTHONPATH": _WORKER},
            self.directory / "log",
        )  # fmt: skip

    def has_begun(self, run_id: str) -> bool:
        """Whether its program has recorded that it executes the run."""
        return self.executed.exists() and f"began {run_id}\n" in self.executed.read_text()

    def killed(self) -> None:
        """Note which runs and outcomes its state directory has at this moment."""
        self.interrupted |= set(self.spooled("held"))
        # The first outcome of a run counts: another one later would be an error of the worker.
        self.reached = {**self.spooled("outcomes"), **self.reached}

    def spooled(self, folder: str) -> dict[str, dict[str, Any]]:
        """Read the files in a folder of its state directory, by run."""
        found = {}
        for file in (self._state / folder).glob("*.json"):
            with suppress(FileNotFoundError):  # the worker has just finished with it
                found[file.stem] = json.loads(file.read_text())
        return found


class Scheduler(Kept):
    """`manage.py runscheduler`."""

    session_name = "scheduler"

    def __init__(self, on: Database) -> None:
        # libpq gives the session this name, by which the database shows it.
        environment = {**on.environment, "PGAPPNAME": self.session_name}
        super().__init__(
            "The scheduler",
            ["manage.py", "runscheduler"],
            environment,
            on.directory / "scheduler.log",
        )


def kill_web_process(served: Web, which: int) -> bool:
    """Kill (kill -9) a process that serves requests. gunicorn starts another."""
    children = psutil.Process(served.pid).children()
    if not children:
        return False
    children[which % len(children)].kill()
    return True


def kill_postgres(on: Database) -> bool:
    """Kill (kill -9) PostgreSQL's main process. The next process that needs the database starts it again."""
    pid = on.running_pid
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    return True
