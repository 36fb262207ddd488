"""Serves the API from a test's database, with the real gunicorn in a process of its own."""

import contextlib
import functools
import itertools
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from django.conf import settings

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.env import BASE_DIR
from testing.processes.warm_start import SERVICE

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PORTS = 1_000
# Each process begins at another port, because other suites may run at the same time. It does not use `random`, whose
# seed tests set.
_ports = (
    10_000
    + _PORTS * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    + number % _PORTS
    for number in itertools.count(secrets.randbelow(_PORTS))
)


# Starts a web process. It takes `environment`, and the file descriptor `output`.
_Start = Callable[..., "subprocess.Popen[bytes]"]
_WARM = functools.partial(SERVICE.start, ["-m", "pipedai.server"], new_session=True)


@dataclass
class Server:
    """A served API. `url` has no path, and the file `log` holds its output."""

    url: str
    database_url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def api(self) -> str:
        """The base URL of all endpoints."""
        return f"{self.url}/api/v1"

    def kill(self) -> None:
        """Kills the server and its children with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def serve(
    database: str, *, log: Path, **environment: str
) -> contextlib.AbstractContextManager[Server]:
    """Serves the API with this database for the time of the block, and then stops it with SIGTERM.

    It listens on `PORT` in `environment` or, without that, on a free port.
    """
    return _serving(_WARM, database, log, environment)


def serve_in_bounds(
    database: str, *, log: Path, most_mib: int
) -> contextlib.AbstractContextManager[Server]:
    """Does the same. On Linux, a process of the server that would take more memory raises MemoryError, which its log
    then has.
    """
    return _serving(functools.partial(_WARM, most_kib=most_mib * 1024), database, log, {})


def serve_on(
    listeners: Sequence[socket.socket], database: str, *, log: Path, **environment: str
) -> contextlib.AbstractContextManager[Server]:
    """Does the same on sockets that listen already. The first is the one at which this process reaches the API."""
    environment |= {
        "PORT": str(listeners[0].getsockname()[1]),
        "WEB_BIND": ",".join(f"fd://{each.fileno()}" for each in listeners),
    }
    command = [sys.executable, "-m", "pipedai.server"]
    descriptors = [each.fileno() for each in listeners]
    start = functools.partial(_cold, BASE_DIR, command, descriptors)
    return _serving(start, database, log, environment)


def serve_checkout(
    checkout: Path, database: str, *, log: Path, **environment: str
) -> contextlib.AbstractContextManager[Server]:
    """Does the same with the code of another checkout, started as that checkout's Procfile says."""
    (web,) = re.findall(r"^web: (.+)$", (checkout / "Procfile").read_text(), re.MULTILINE)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment |= {
        "DJANGO_SETTINGS_MODULE": "pipedai.settings",  # The checkout may be older than the settings of tests.
        "PIPEDAI_ENV": "development",
        "WEB_CONCURRENCY": "1",
        "PATH": path,
    }
    start = functools.partial(_cold, checkout, ["sh", "-c", web])
    return _serving(start, database, log, environment)


def _cold(
    checkout: Path,
    command: list[str],
    descriptors: Sequence[int] = (),
    *,
    environment: dict[str, str],
    output: int,
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own commands
        command,
        cwd=checkout,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=descriptors,
    )


@contextlib.contextmanager
def _serving(
    start: _Start, database: str, log: Path, environment: dict[str, str]
) -> Iterator[Server]:
    port = int(environment.get("PORT") or free_port())
    database_url = url_of(database)
    with log.open("ab") as output:
        process = start(
            environment={
                **os.environ,
                "DATABASE_URL": database_url,
                "PORT": str(port),
                "PUBLIC_URL": f"http://127.0.0.1:{port}",
                "WEB_BIND": f"127.0.0.1:{port}",
                "DJANGO_SETTINGS_MODULE": "testing.settings",
                **environment,
            },
            output=output.fileno(),
        )
    server = Server(f"http://127.0.0.1:{port}", database_url, process, log)
    try:
        _wait_until_it_answers(server)
        yield server
        process.terminate()
        process.wait(_STOP_SECONDS)
    finally:
        server.kill()


def url_of(database: str) -> str:
    """Returns the DATABASE_URL of a database on the same server as the tests' own."""
    if settings.DATABASE_URL:
        base, _, query = settings.DATABASE_URL.partition("?")
        return f"{base.rpartition('/')[0]}/{database}" + (f"?{query}" if query else "")
    return EmbeddedPostgres(settings.DATA_DIR).url(database)


def free_port() -> int:
    """Returns a port on which nobody listens, and which nobody else gets before the caller uses it.

    It is below the ports that systems give to programs that ask for any port. No other process of the suite uses it.
    """
    while True:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def _wait_until_it_answers(server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    # By default a client reads the system's certificates when it is made, which costs 10 ms of CPU time.
    with httpx.Client(trust_env=False, verify=False, timeout=60) as client:  # noqa: S501
        while time.monotonic() < deadline and server.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                client.get(f"{server.api}/auth/me")
                return
            time.sleep(0.05)
    raise RuntimeError("the API did not start:\n" + server.log.read_text())
