"""An HTTP server in a process of its own that answers as it is told, also as no honest server would.

It is told a JSON object: each path has a status, headers and a body, where `{origin}` is the server's own origin, and
`{asked}` the request's method, its header Authorization and its body, percent-encoded. The body `endless` never ends,
nor does `drips`, which comes slowly. `/asked` has all requests so far: a list of method, path and Authorization each.
Other paths are a 404.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import quote

Told = tuple[int, Mapping[str, str], Any]


@contextlib.contextmanager
def told_server(pages: Mapping[str, Told]) -> Iterator[str]:
    """Runs the server for the time of the block, and yields its origin."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(pages), file=process.stdin, flush=True)
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Told]
    seen: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_GET(self) -> None:
        origin = _origin(self.server)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = quote(f"{self.command} {self.headers.get('Authorization')} {sent}")
        self.seen.append((self.command, self.path, self.headers.get("Authorization")))
        told = {**self.pages, "/asked": (200, {}, self.seen)}
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


def _origin(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


if __name__ == "__main__":
    _Handler.pages = json.loads(sys.stdin.readline())
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        sys.stdout.write(_origin(server) + "\n")
        sys.stdout.flush()
        server.serve_forever()
