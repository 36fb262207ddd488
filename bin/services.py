"""Runs command lines side by side under honcho, until one of them ends or a signal comes."""

# honcho has no types:
# mypy: disallow-untyped-calls=False

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import honcho.manager
import honcho.process
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from bin.ending import die_with_parent

# After SIGTERM the worker hands its run back within 28 s, and the web process answers the requests it has begun.
STOP_SECONDS = 30


def procfile(path: Path) -> Mapping[str, str]:
    """Read the command lines of a Procfile, by process type."""
    processes: Mapping[str, str] = parse_procfile(path.read_text()).processes
    return processes


class Services:
    """Command lines to run side by side. Each must `exec` its program, so that signals reach the program."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Without forking, the children's parent would be a server process of multiprocessing and not this process.
        multiprocessing.set_start_method("fork", force=True)
        honcho.manager.KILL_WAIT = STOP_SECONDS
        self._manager = _Manager()
        self._environment = environment

    def add(self, name: str, command: str) -> None:
        """Add a command line, which `run` will start."""
        self._manager.add_process(name, command, env=self._environment)

    def say(self, text: str) -> None:
        """Print a line between those of the services. Any thread may call it once they run."""
        line = Message("line", f"{text}\n", None, None, None)
        self._manager.events.put(line)

    def run(self, *, when_started: Callable[[], None]) -> int:
        """Start all services, wait until all have ended, and return the exit code.

        When one service ends, or SIGINT or SIGTERM comes, the others are ended. `when_started` may start threads.
        """
        self._manager.when_started = when_started
        try:
            self._manager.loop()
        except BaseException:
            # honcho's processes ignore all other signals, and Python would wait for them when it exits.
            for child in multiprocessing.active_children():
                child.kill()
            raise
        return int(self._manager.returncode or 0)


class _Output:
    """Standard output without a buffer: with one, honcho's signal handler could not print while another
    print is under way. When nobody reads the output any more, it asks for the end."""

    def __init__(self) -> None:
        self._read = True

    def write(self, text: str) -> None:
        data = text.encode()
        try:
            while data and self._read:
                data = data[os.write(1, data) :]
        except BrokenPipeError:
            self._read = False
            signal.raise_signal(signal.SIGTERM)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return os.isatty(1)


class _Printer(Printer):
    """Prints this script's own lines, which belong to no service, without a prefix."""

    def write(self, message: Message) -> None:
        if message.name is None:
            self.output.write(message.data)
        else:
            super().write(message)


class _Manager(honcho.manager.Manager):
    """A manager that loses no early signal and whose processes end when it is killed."""

    def __init__(self) -> None:
        super().__init__(_Printer(_Output()))
        self._process_ctor = _Process
        self._stop_asked = False
        self.when_started: Callable[[], None]

    def terminate(self) -> None:
        # honcho can't stop a process whose pid it does not know yet: then its loop stops all once it knows them.
        self._stop_asked = True
        if self._all_started():
            super().terminate()

    def _any_stopped(self) -> bool:
        return self._stop_asked or super()._any_stopped()

    def _start(self) -> None:
        super()._start()
        self.when_started()


class _Process(honcho.process.Process):
    """The process between the manager and a command. It dies with the manager, and the command dies with it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._child_ctor: type[honcho.process.Popen] = _Popen
        self._die_with_manager = die_with_parent(signal.SIGKILL)

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        self._die_with_manager()
        super().run(events, ignore_signals)


class _Popen(honcho.process.Popen):
    def __init__(self, command: str, **options: Any) -> None:
        super().__init__(command, preexec_fn=die_with_parent(signal.SIGTERM), **options)
