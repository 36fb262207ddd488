"""A program in a process group of its own: read as it writes, and ended with all it started."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipedai_worker import identity
from pipedai_worker.stopping import StopReason

# How often a running program is looked at when it is silent.
TICK_SECONDS = 0.1
CHUNK_BYTES = 64 * 1024
# After the program itself has ended, how long something it left behind may hold its output open.
PIPE_GRACE_SECONDS = 1.0

Sink = Callable[[bytes], None]


@dataclass(frozen=True)
class Ending:
    """How a program ended: its exit code as a shell gives it, and why it was stopped, if it was."""

    exit_code: int
    stopped_by: StopReason | None
    signal_name: str | None = None

    @property
    def killed(self) -> bool:
        """Whether its last words may be incomplete."""
        return self.signal_name is not None or self.stopped_by is not None

    @property
    def description(self) -> str:
        """For a person: `exited with code 3`, `was ended by SIGSEGV`."""
        if self.signal_name:
            return f"was ended by {self.signal_name}"
        return f"exited with code {self.exit_code}"


class Program:
    """A started program. Call `supervise()` once."""

    def __init__(
        self, argv: Sequence[str], *, stdin: bytes, directory: Path, environment: Mapping[str, str]
    ) -> None:
        """Raises OSError when the program can't be launched."""
        # A file and not a pipe: nobody has to write while the program is slow to read.
        with tempfile.TemporaryFile() as input_file:
            input_file.write(stdin)
            input_file.seek(0)
            self._process = subprocess.Popen(
                list(argv),
                stdin=input_file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=directory,
                env=dict(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.started = identity.start_time(self.pid)

    def supervise(
        self,
        *,
        stdout: Sink,
        stderr: Sink,
        should_stop: Callable[[], StopReason | None],
        term_grace: Callable[[], float],
    ) -> Ending:
        """Read its output until it has ended, or end it when `should_stop` says why.

        Its group then gets SIGTERM and, `term_grace` seconds later, SIGKILL. Whatever it left
        running in its group is killed as well.
        """
        try:
            with _Pipes(self._process, stdout, stderr) as pipes:
                stopped_by = self._follow(pipes, should_stop, term_grace)
                self._end_group()
                pipes.read_rest()
        finally:
            self._end_group()
        return self._reap(stopped_by)

    def _follow(
        self,
        pipes: _Pipes,
        should_stop: Callable[[], StopReason | None],
        term_grace: Callable[[], float],
    ) -> StopReason | None:
        stopped_by: StopReason | None = None
        terminated_at = 0.0
        while not self._has_ended():
            pipes.read(TICK_SECONDS)
            now = time.monotonic()
            if stopped_by is None:
                stopped_by = should_stop()
                if stopped_by is not None:
                    self._signal_group(signal.SIGTERM)
                    terminated_at = now
            elif now - terminated_at >= term_grace():
                self._signal_group(signal.SIGKILL)
        # Something it left behind may hold its output open.
        ended_at = time.monotonic()
        while pipes.open and time.monotonic() - ended_at < PIPE_GRACE_SECONDS:
            pipes.read(TICK_SECONDS)
        return stopped_by

    def _end_group(self) -> None:
        """Kill whatever is left of the group."""
        self._signal_group(signal.SIGKILL)

    def _reap(self, stopped_by: StopReason | None) -> Ending:
        code = self._process.wait()
        if code >= 0:
            return Ending(code, stopped_by)
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return Ending(128 - code, stopped_by, name)

    def _has_ended(self) -> bool:
        """Whether it has ended. It is not reaped: until then its group's number can't be reused."""
        if hasattr(os, "waitid"):
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, options) is not None
        return self._process.poll() is not None

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class _Pipes:
    """The two output pipes, read without blocking."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: Sink, stderr: Sink) -> None:
        self._selector = selectors.DefaultSelector()
        self._files: list[IO[bytes]] = []
        for file, sink in ((process.stdout, stdout), (process.stderr, stderr)):
            if file is not None:
                os.set_blocking(file.fileno(), False)
                self._selector.register(file, selectors.EVENT_READ, sink)
                self._files.append(file)

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for file in self._files:
            file.close()

    @property
    def open(self) -> bool:
        """Whether either may still bring something."""
        return bool(self._selector.get_map())

    def read(self, timeout: float) -> bool:
        """One piece from each that has something within `timeout` seconds; whether any had."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            try:
                chunk = os.read(key.fd, CHUNK_BYTES)
            except BlockingIOError:
                continue
            if chunk:
                key.data(chunk)
            else:
                self._selector.unregister(key.fileobj)
        return bool(ready)

    def read_rest(self) -> None:
        """What the pipes still hold, without waiting; bounded, should something go on writing."""
        for _ in range(64):
            if not self.open or not self.read(0):
                return
