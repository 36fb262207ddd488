"""Starts the real web server for a test, and talks to it over plain sockets."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testing.probes.error_codes import CODES
from testing.processes import warm_start
from testing.processes.web_process import free_port
from testing.processes.worker_process import until

ROOT = Path(__file__).resolve().parents[3]
SMALL_APP = "pipedai.server.tests.small_app:application"
CONFIG = "python:pipedai.server.gunicorn_conf"
# Nothing listens at this URL, so a process that gets it has no database.
NO_DATABASE = "postgres://nobody@127.0.0.1:1/nowhere"
# The table of connections in Linux.
_TABLE = Path("/proc/net/tcp")
_ESTABLISHED = "01"


def gunicorn(app: str, *options: str, output: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Starts the web process as the Procfile does, with an environment of its own."""
    own = {"DATABASE_URL": NO_DATABASE, "LOG_FORMAT": "json", "PIPEDAI_ENV": "development"}
    names = ("PATH", "HOME", "PYTHONPATH")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    with output.open("wb") as file:
        return warm_start.start(
            ["-m", "gunicorn", "-c", CONFIG, *options, app],
            environment=inherited | own | environment,
            output=file.fileno(),
            new_session=True,
        )


class WebProcess:
    """A web server that answers requests."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self.process = process
        self.port = port
        self._output = output

    def connect(self, sent: bytes = b"", *, seconds: float = 60.0) -> socket.socket:
        """Opens a connection and sends this on it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        connection.sendall(sent)
        return connection

    def exchange(self, sent: bytes) -> bytes:
        """Sends this, and returns everything that the server sends until it closes the connection."""
        with self.connect(sent) as connection:
            return read_all(connection)

    def lines(self) -> list[dict]:
        """Returns the log lines so far."""
        text = self._output.read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def output(self) -> str:
        return self._output.read_text()

    def wait_for_line(self, **values: object) -> dict:
        """Waits for a log line with these values, and returns the first one."""
        deadline = time.monotonic() + 60
        while True:
            for line in self.lines():
                if values.items() <= line.items():
                    return line
            assert time.monotonic() < deadline, f"no line with {values} in:\n{self.output()}"
            time.sleep(0.02)

    def wait_until_taken(self, connections: int) -> None:
        """Returns once the server has accepted so many connections and read everything that was sent on them."""
        if _TABLE.exists():
            until(lambda: self._connections() == [(True, 0)] * connections)
        else:
            time.sleep(1)

    def wait_until_left(self) -> None:
        """Returns once the server has no connection any more."""
        if _TABLE.exists():
            until(lambda: not any(accepted for accepted, _ in self._connections()))
        else:
            time.sleep(5)

    def wait_until_refusing(self) -> None:
        """Returns once the server's port is closed."""
        until(self._refuses)

    def _connections(self) -> list[tuple[bool, int]]:
        """Returns for each connection whether the server has accepted it, and how many bytes it has not read yet."""
        rows = [line.split() for line in _TABLE.read_text().splitlines()[1:]]
        ours = f":{self.port:04X}"
        return [
            (row[9] != "0", int(row[4].partition(":")[2], 16))
            for row in rows
            if row[1].endswith(ours) and row[3] == _ESTABLISHED
        ]

    def _refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionError:
            return True
        return False

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal to the server, and returns its exit code."""
        self.process.send_signal(sign)
        return self.process.wait(timeout=60)


@contextmanager
def serving(
    tmp_path: Path, app: str = SMALL_APP, *options: str, **environment: str
) -> Iterator[WebProcess]:
    """Runs a web server for the time of the block, and then kills it if it still runs."""
    port = free_port()
    output = tmp_path / "web.log"
    process = gunicorn(app, *options, output=output, PORT=str(port), **environment)
    web = WebProcess(process, port, output)
    try:
        _wait_until_up(web)
        yield web
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(web: WebProcess) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert web.process.poll() is None, web.output()
        assert time.monotonic() < deadline, web.output()
        try:
            # The master's socket accepts connections before there is a worker to answer them.
            if web.exchange(b"GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
                return
        except OSError:
            pass
        time.sleep(0.05)


def read_all(connection: socket.socket) -> bytes:
    """Returns everything that arrives until the other side closes the connection."""
    pieces = []
    while piece := connection.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Returns (status, headers by lower-case name, body) of one answer with a Content-Length."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name.lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines)]
    assert len(dict(pairs)) == len(pairs), f"a header is there twice: {pairs}"
    status, headers = int(first.split()[1]), dict(pairs)
    if headers.get("content-length") == str(len(rest)):
        CODES.look_at("", status, headers, rest)
    return status, headers, rest
