"""Starts programs as forks of a process that has imported their packages already, but no settings.

Such a program is as good as one in a new interpreter, and takes half of the CPU time to start, or a tenth if it is the
worker. Each process of the suite has one process that starts the service's programs and one that starts the worker's,
which `python -m testing.processes.warm_start` runs. They end with the suite's process.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
# A worker that exits leaves its connections to the system to close, so ResourceWarning is no error here.
WORKER_OPTIONS = ("-W", "error", "-W", "ignore::ResourceWarning")
# What the service's programs import. None of these reads a setting, or an environment variable that tests set.
_SERVICE = (
    "a2wsgi", "corsheaders.middleware", "cron_descriptor", "cronsim", "django.contrib.admin.views.main",
    "django.contrib.postgres.expressions", "django.core.handlers.asgi", "django.core.mail.backends.smtp",
    "django.core.management", "django.db.backends.postgresql.base", "django.db.migrations.executor",
    "django.middleware.gzip", "django.test", "django.views.decorators.http", "django_filters", "drf_spectacular.utils",
    "environ", "jwt", "nacl.secret", "orjson", "psutil", "pyotp", "segno", "ssrfguard.httpx", "statistics",
    "structlog", "uuid_utils.compat", "whitenoise.storage", "yaml",
)  # fmt: skip
_WORKER = ("pipedai_worker.cli", "pipedai_worker.commands", "httpcore", "anyio._backends._asyncio")
# Python and the packages read these when they start, so a program with other values is no fork.
_READ_AT_START = ("PYTHONPATH", "PYTHONWARNINGS", "PYTHONDEVMODE", "OTEL_EXPORTER_OTLP_ENDPOINT")
_LOCALE = {"LC_ALL", "LC_CTYPE", "LANG"}
_MESSAGE_BYTES = 1_000_000


class Fork(subprocess.Popen[bytes]):
    """A program that was started so. It is used like any other process that was started."""

    def __init__(self, command: Sequence[str], pid: int, ended: socket.socket) -> None:
        self.args, self.pid, self.returncode = command, pid, None
        self.stdin = self.stdout = self.stderr = None
        self._ended = ended
        self._child_created = False  # Popen itself has nothing to do with it.

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._ended.settimeout(timeout)
            try:
                said = self._ended.recv(16)
            except (BlockingIOError, TimeoutError):
                return None
            self._ended.close()
            # Nothing is said if the process that starts programs is gone.
            self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode


class Starter:
    """Starts programs by a process that has imported `packages`. Python has these options there."""

    def __init__(
        self,
        packages: Sequence[str],
        options: Sequence[str] = (),
        environment: Callable[[], Mapping[str, str]] = lambda: os.environ,
    ) -> None:
        self._packages, self._options, self._environment = packages, options, environment
        self._one_at_a_time = threading.Lock()

    def start(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: int,
        errors: int | None = None,
        directory: Path = _ROOT,
        new_session: bool = False,
        most_kib: int | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Starts `SCRIPT …`, `-m MODULE …` or `-c PROGRAM` in a directory, by default this project's, with no other
        environment.

        All that it writes goes to the file descriptor `output`, or its errors to `errors`. It takes no more memory than
        `most_kib`, if that is given, and has as many open files as this process may.
        """
        command = [sys.executable, *self._options, *words]
        errors = output if errors is None else errors
        with self._one_at_a_time:
            asked, read = self._process
        if sys.platform != "linux" or any(
            environment.get(name, "") != value for name, value in read.items()
        ):
            bounds = ["sh", "-c", f'ulimit -d {most_kib}; exec "$@"', "sh"] if most_kib else []
            return subprocess.Popen(  # noqa: S603 - our own commands
                [*bounds, *command],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=new_session,
            )
        ours, theirs = socket.socketpair()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)
        about = [words, dict(environment), str(directory), new_session, most_kib, files]
        with theirs, self._one_at_a_time:
            descriptors = [output, errors, theirs.fileno()]
            socket.send_fds(asked, [json.dumps(about).encode()], descriptors)
            pid = int(asked.recv(16))
        return Fork(command, pid, ours)

    def run(
        self, words: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Runs such a program to its end, and returns what it has written."""
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = self.start(
                words, environment=environment, output=output.fileno(), errors=errors.fileno()
            )
            try:
                code = process.wait(timeout=300)
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(words, code, output.read(), errors.read())

    @functools.cached_property
    def _process(self) -> tuple[socket.socket, dict[str, str]]:
        """The socket on which the process is asked to start programs, and what it has read of its environment."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        environment = self._environment()
        this = ["-m", "testing.processes.warm_start", str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, *self._options, *this, *self._packages],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

        def end() -> None:
            process.kill()
            process.wait()
            ours.close()

        atexit.register(end)
        return ours, {name: environment.get(name, "") for name in _READ_AT_START}


def worker_path() -> str:
    """Returns the PYTHONPATH of a worker from this checkout."""
    directories = [str(_ROOT / "agent"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(filter(None, directories)))


SERVICE = Starter(_SERVICE)
WORKER = Starter(
    _WORKER, WORKER_OPTIONS, lambda: {"PATH": os.environ["PATH"], "PYTHONPATH": worker_path()}
)


def _serve(asked: socket.socket) -> list[str]:
    """Starts what it is asked to start. Returns in each program that it has started, with the program's words."""
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    living: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                woken.recv(4096)
            _tell_of_the_ended(living)
        if asked not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(asked, _MESSAGE_BYTES, 3)
        if not message:
            os._exit(0)  # The process of the suite is gone.
        output, errors, told = descriptors
        if pid := os.fork():
            os.close(output)
            os.close(errors)
            living[pid] = socket.socket(fileno=told)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        words, environment, directory, new_session, most_kib, files = json.loads(message)
        if new_session:
            os.setsid()
        asked.send(str(os.getpid()).encode())
        for each in (asked, woken, wake, *living.values()):
            each.detach()
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        if most_kib:
            resource.setrlimit(resource.RLIMIT_DATA, (most_kib * 1024, most_kib * 1024))
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        if not _LOCALE & environment.keys():
            # Python itself names this one where none is named.
            os.environ["LC_CTYPE"] = "C.UTF-8"
        return list(words)


def _tell_of_the_ended(living: dict[int, socket.socket]) -> None:
    for pid in list(living):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with living.pop(pid) as told, contextlib.suppress(OSError):
                told.send(str(os.waitstatus_to_exitcode(status)).encode())


def _main(descriptor: str, *packages: str) -> None:
    gc.disable()
    for package in packages:
        importlib.import_module(package)
    django_conf = sys.modules.get("django.conf")
    assert django_conf is None or not django_conf.settings.configured, "a package reads settings"
    gc.freeze()
    words = _serve(socket.socket(fileno=int(descriptor)))
    gc.enable()
    if words[0] == "-m":
        sys.path[0], sys.argv = str(Path.cwd()), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path[0], sys.argv = "", ["-c"]
        exec(words[1], {"__name__": "__main__"})  # noqa: S102 - a test's own program
    else:
        sys.path[0], sys.argv = str(Path(words[0]).resolve().parent), words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
