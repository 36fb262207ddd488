"""HTTP servers in a process of their own that answer as they are told, also as no honest server would.

A server is told a JSON object: each path has a status, headers and a body, where `{origin}` is the server's own origin,
and `{asked}` the request's method, its header Authorization and its body, percent-encoded. The body `endless` never
ends, nor does `drips`, which comes slowly. `/asked` has all requests so far: a list of method, path and Authorization
each. Other paths are a 404.
"""

import atexit
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

Told = tuple[int, Mapping[str, str], Any]


@contextlib.contextmanager
def told_server(pages: Mapping[str, Told]) -> Iterator[str]:
    """Runs a server for the time of the block, and yields its origin. All of them are threads of one process."""
    process = _process()
    origin = _tell(process, pages)
    try:
        yield origin
    finally:
        _tell(process, origin)


@cache
def _process() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    # It ends when its input ends.
    atexit.register(process.communicate)
    return process


def _tell(process: subprocess.Popen[str], what: Any) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(what), file=process.stdin, flush=True)
    return str(process.stdout.readline()).strip()


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        origin = self.server.origin
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = quote(f"{self.command} {self.headers.get('Authorization')} {sent}")
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization")))
        told = {**self.server.pages, "/asked": (200, {}, self.server.seen)}
        status, headers, body = told.get(self.path, (404, {}, ""))
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value.replace("{origin}", origin))
            self.end_headers()
            while body in ("endless", "drips"):
                self.wfile.write(b"x" * (4096 if body == "endless" else 1))
                time.sleep(0 if body == "endless" else 0.05)
            text = body if isinstance(body, str) else json.dumps(body)
            self.wfile.write(text.replace("{origin}", origin).replace("{asked}", asked).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pages: Mapping[str, Told]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = pages
        self.seen: list[tuple[str, str, str | None]] = []
        self.origin = f"http://127.0.0.1:{self.server_address[1]}"


def _serve_as_told() -> None:
    """Begins a server for each line of pages, and ends it for a line that is its origin, until no line comes."""
    servers: dict[str, _Server] = {}
    for line in sys.stdin:
        told = json.loads(line)
        if isinstance(told, str):
            server = servers.pop(told)
            server.shutdown()
            server.server_close()
        else:
            server = _Server(told)
            servers[server.origin] = server
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        print(server.origin, flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve_as_told()
