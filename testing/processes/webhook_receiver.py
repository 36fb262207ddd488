"""Receives webhooks on real sockets, keeps the requests, and answers as a test tells it."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"


@dataclass
class Receiver:
    """Answers each request with the next of `answers`, and with 204 when they are used up.

    While `gate` is clear it keeps requests waiting.
    """

    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    port: int = 0

    def url(self, path: str = "/hook?key=1", *, host: str = "127.0.0.1") -> str:
        """Returns the URL of the receiver."""
        return f"http://{host}:{self.port}{path}"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Sets the answer to the next request that has no answer yet."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body))


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """Runs a receiver on a free port of the loopback interface for the time of the block."""
    receiver = Receiver()
    receiver.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            received = Received(self.path, dict(self.headers.items()), body, self.command)
            receiver.received.append(received)
            receiver.arrived.release()
            receiver.gate.wait(30)
            status, headers, answer = (
                receiver.answers.pop(0) if receiver.answers else (204, {}, b"")
            )
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

        def do_DELETE(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.gate.set()
            server.shutdown()
            thread.join()
