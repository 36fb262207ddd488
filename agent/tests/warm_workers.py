"""Executes programs of this package as forks of a process that has imported them: `warm_workers.py SOCKET`.

A program that is started anew spends a fifth of a second on Python's imports, and a fork a hundredth. It is a process
like any other apart from that: it has its own id, environment, directory and files, and may be killed.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

AGENT = Path(__file__).resolve().parent.parent
# A worker that exits leaves its connections to the system to close, so ResourceWarning is no error here.
WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")


class Fork:
    """A forked process. It has what the callers use of a `subprocess.Popen`."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._told = channel, channel.makefile("r")
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._channel, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("a fork", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(int(self._told.readline()))
            self._told.close()
            self._channel.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmWorkers:
    """The process that forks, as seen by those who want a fork."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def start(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        directory: Path = Path("/"),
        *,
        leads_a_session: bool = False,
    ) -> Fork:
        """Start a program: `pipedai_worker` or a script of this directory, and its arguments. It reads nothing, and
        appends what it writes to `log`.
        """
        request = {
            "program": list(program),
            "environment": dict(environment),
            "log": str(log),
            "directory": str(directory),
            "leads_a_session": leads_a_session,
        }
        log.touch()
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(self._path)
        channel.sendall(json.dumps(request).encode())
        channel.shutdown(socket.SHUT_WR)
        return Fork(channel)


@contextlib.contextmanager
def warm_workers(environment: Mapping[str, str]) -> Iterator[WarmWorkers]:
    """Start the process that forks, which ends with this one at the latest."""
    with tempfile.TemporaryDirectory(prefix="warm-") as directory:
        path = Path(directory, "socket")
        command = [sys.executable, *WARNINGS, __file__, str(path)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            # The end of its input ends it.
            yield WarmWorkers(path)


def main(path: str) -> int:
    from pipedai_worker import cli
    from tests import broken_worker, plain_worker

    for lazily_imported in ("pipedai_worker.commands", "httpcore", "anyio._backends._asyncio"):
        import_module(lazily_imported)

    def ours() -> int:
        return cli.main(sys.argv[1:])

    programs: dict[str, Callable[[], int]] = {
        "pipedai_worker": ours,
        "broken_worker.py": broken_worker.main,
        "plain_worker.py": lambda: plain_worker.main(sys.argv[1]),
    }
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        gc.freeze()
        name = _serve(listener)
    return programs[name]() if name else 0


def _serve(listener: socket.socket) -> str | None:
    """Fork for each request, and tell who asked the fork's id and at last its status. Return the name of the program to
    execute in a fork, and None in this process at the end of its input.
    """
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    asking: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for readable in (listener, woken, sys.stdin):
            selector.register(readable, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if sys.stdin in ready:
                return None
            if woken in ready:
                os.read(woken, 4096)
                _reap(asking)
            if listener in ready:
                channel = listener.accept()[0]
                with channel.makefile() as asked:
                    request = json.load(asked)
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for end in (woken, wake):
                        os.close(end)
                    return _become(request)
                asking[pid] = channel
                channel.sendall(b"%d\n" % pid)


def _reap(asking: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with asking.pop(ended[0]) as channel, contextlib.suppress(OSError):
                channel.sendall(b"%d\n" % ended[1])


def _become(request: dict[str, Any]) -> str:
    """Take on what a process that was started anew would have, and return the program's name."""
    if request["leads_a_session"]:
        os.setsid()
    os.chdir(request["directory"])
    # Python itself sets this one where no locale is named.
    coerced = {name: os.environ[name] for name in ("LC_CTYPE",) if name in os.environ}
    os.environ.clear()
    os.environ.update({**coerced, **request["environment"]})
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number, opened in enumerate([os.open(os.devnull, os.O_RDONLY), log, log]):
        os.dup2(opened, number)
    os.close(log)
    sys.argv = request["program"]
    return Path(sys.argv[0]).name


def _leave(code: int) -> None:
    """End as a fork of multiprocessing does: Python's own end takes longer, as it frees all that has been imported."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    _leave(code)
