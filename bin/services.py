"""Runs command lines at the same time with honcho, keeps in files what they print, and shows what matters."""

# honcho has no type annotations, so mypy must allow calls of its functions in this file:
# mypy: disallow-untyped-calls=False

import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import honcho.manager
import honcho.process
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from bin.ending import die_with_parent

# The levels of log lines that nobody needs to see while all goes well.
_QUIET = frozenset({"debug", "info"})
# A log line begins with a time and its level: `2026-11-24T15:30:00.123456Z [info     ] …` in the service's text form,
# and `15:30:00 info    …` in the worker's.
_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[([a-z]+) *\]|\d\d:\d\d:\d\d ([a-z]+) ")


def level_of(line: str) -> str | None:
    """Return the level of a log line. It is None for other lines, such as those of a traceback or a print."""
    if line.startswith("{"):
        try:
            level = json.loads(line).get("level")
        except ValueError:
            return None
        return str(level).lower() if level else None
    found = _TEXT.match(line)
    return found and (found[1] or found[2])


def is_alarming(line: str) -> bool:
    return level_of(line) not in {None, *_QUIET}


class ServiceLogs:
    """A log file for each service, which only this user may read. The previous one ends in `.log.1`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(mode=0o700, exist_ok=True)
        # Whether the last line of each service was worth showing. An indented line belongs to the line before it.
        self._shown: dict[str, bool] = {}

    def path_of(self, service: str) -> Path:
        return self.place / f"{service}.log"

    def begin(self, service: str) -> None:
        path = self.path_of(service)
        if path.exists():
            path.replace(path.with_name(f"{path.name}.1"))
        path.touch(mode=0o600)

    def keep(self, service: str, line: str) -> bool:
        """Append a line to the service's file. Return whether a person should see it at once."""
        with self.path_of(service).open("a") as file:
            file.write(f"{line}\n")
        level = level_of(line)
        if level is not None:
            self._shown[service] = level not in _QUIET
        elif not line[:1].isspace():
            self._shown[service] = bool(line)
        return self._shown.get(service, True)


# The services get this long to end after SIGTERM. The worker needs up to 28 s to end its run and report it. The web
# process first answers the requests that it has begun.
STOP_SECONDS = 30


def procfile(path: Path) -> Mapping[str, str]:
    """Return the command lines of a Procfile, each under the name of its process type, such as `web`."""
    processes: Mapping[str, str] = parse_procfile(path.read_text()).processes
    return processes


class Services:
    """Command lines to run at the same time. Each must `exec` its program, because a shell would not pass signals on.
    With `logs` their output also goes to files. With `quiet` only warnings, errors and unexpected ends are shown.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        logs: ServiceLogs | None = None,
        quiet: bool = False,
    ) -> None:
        # Services end with their parent process. Only with the method "fork" is this process their parent.
        multiprocessing.set_start_method("fork", force=True)
        honcho.manager.KILL_WAIT = STOP_SECONDS
        self._manager = _Manager(logs, quiet=quiet and logs is not None)
        self._environment = environment
        self._logs = logs

    def add(self, name: str, command: str) -> None:
        if self._logs is not None:
            self._logs.begin(name)
        self._manager.add_process(name, command, env=self._environment)

    def say(self, text: str) -> None:
        """Print a line between the output of the services. Any thread may call this once `run` has started them."""
        line = Message("line", f"{text}\n", None, None, None)
        self._manager.events.put(line)

    def run(self, *, when_started: Callable[[], None]) -> int:
        """Return the exit code when all services have ended. The end of one, or a signal, ends all. `when_started` is
        called once all have been started.
        """
        self._manager.when_started = when_started
        try:
            self._manager.loop()
        except BaseException:
            # Honcho's processes ignore all signals but SIGKILL, and Python would wait for them at its exit.
            for child in multiprocessing.active_children():
                child.kill()
            raise
        return int(self._manager.returncode or 0)


class _Output:
    """Writes to standard output without a buffer, because a signal may interrupt a print. If the output's reader has
    gone, bin/run gets SIGTERM.
    """

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
    """Writes a service's lines to its log file, and prints them with its name as prefix, unless `quiet` hides them."""

    def __init__(self, output: _Output, logs: ServiceLogs | None, *, quiet: bool) -> None:
        super().__init__(output)
        self._logs = logs
        self._quiet = quiet

    def write(self, message: Message) -> None:
        if message.name is None:
            self.output.write(message.data)
            return
        shown = True
        if self._logs is not None and message.name != honcho.manager.SYSTEM_PRINTER_NAME:
            data = message.data
            text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
            shown = self._logs.keep(message.name, text.rstrip("\n")) or not self._quiet
        if shown:
            super().write(message)


class _Manager(honcho.manager.Manager):
    """Honcho's manager, changed so that it obeys signals during the start, and so that its processes end with it."""

    def __init__(self, logs: ServiceLogs | None, *, quiet: bool) -> None:
        super().__init__(_Printer(_Output(), logs, quiet=quiet))
        self._quiet = quiet
        self._process_ctor = _Process
        self._stop_asked = False
        self.when_started: Callable[[], None]

    def terminate(self) -> None:
        # Honcho can't stop a process whose id it does not know yet. The manager's loop stops all once it knows them.
        self._stop_asked = True
        if self._all_started():
            super().terminate()

    def _system_print(self, data: str) -> None:
        # This line comes from honcho itself. It says which service honcho starts or signals, or that one has ended.
        if not self._quiet or (" stopped (" in data and not self._stop_asked):
            super()._system_print(data)
        elif data.endswith(" received\n") and not self._stop_asked:
            self._printer.write(Message("line", "Stopping the services…\n", None, None, None))

    def _any_stopped(self) -> bool:
        return self._stop_asked or super()._any_stopped()

    def _start(self) -> None:
        super()._start()
        self.when_started()


class _Process(honcho.process.Process):
    """Honcho's process between the manager and a command. It ends with the manager, and the command ends with it."""

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
