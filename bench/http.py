"""A client for HTTP/1.1 that uses little CPU, since it shares the machine with the server that it measures."""

import json
import re
import socket
from dataclasses import dataclass
from typing import Any, Self

from testing.processes.failure import ProcessFailed
from testing.processes.stack import HOST

BASE_PATH = "/api/v1"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SESSION = re.compile(rb"\r\nset-cookie: *(auth_token=[^;\r]+)", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
_CHUNK = 65536


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An answer, with its head as it came."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def session_cookie(self) -> str:
        """The session cookie that the answer sets. Raises ProcessFailed if it sets none."""
        found = _SESSION.search(self.head)
        if found is None:
            raise ProcessFailed("An answer that should set the session cookie set none.")
        return found[1].decode()

    def json(self) -> Any:
        """Parse the body as JSON."""
        return json.loads(self.body)


def request(
    method: str,
    path: str,
    *,
    token: str | None = None,
    cookie: str | None = None,
    body: object = None,
    base: str = BASE_PATH,
) -> bytes:
    """Return a request's bytes. `path` is relative to `base`; `body` is sent as JSON."""
    lines = [f"{method} {base}{path} HTTP/1.1", f"Host: {HOST}"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if cookie is not None:
        lines.append(f"Cookie: {cookie}")
    content = b""
    if body is not None:
        content = json.dumps(body).encode()
        lines.append("Content-Type: application/json")
    if method != "GET":
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def _body_length(head: bytes) -> int:
    """Return the length of the body after this head. Raises ProcessFailed if the head does not state it."""
    if head[9:12] == b"204":
        return 0
    found = _LENGTH.search(head)
    if found is None:
        raise ProcessFailed(f"An answer came without its length: {head[:80]!r}.")
    return int(found[1])


def check(sent: bytes, answer: Answer) -> Answer:
    """Return the answer if it is a success, and raise ProcessFailed otherwise."""
    if not 200 <= answer.status < 300:
        line = sent.split(b" HTTP/", 1)[0].decode()
        raise ProcessFailed(f"{line} answered {answer.status}: {answer.body[:300].decode()}")
    return answer


class Connection:
    """One connection that stays open and carries one request at a time. It is a context manager."""

    def __init__(self, port: int, *, timeout: float = 60.0) -> None:
        self._socket = socket.create_connection((HOST, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, sent: bytes) -> Answer:
        """Send a request's bytes and return its answer, whatever the status."""
        self._socket.sendall(sent)
        data = self._socket.recv(_CHUNK)
        while (end := data.find(_END_OF_HEAD)) < 0:
            data += self._more()
        end += len(_END_OF_HEAD)
        head, whole = data[:end], end + _body_length(data[:end])
        while len(data) < whole:
            data += self._more()
        return Answer(head, data[end:])

    def call(self, method: str, path: str, **parts: Any) -> Answer:
        """Send a request of `request`'s arguments, and return its answer. Raises ProcessFailed unless it is 2xx."""
        sent = request(method, path, **parts)
        return check(sent, self.exchange(sent))

    def _more(self) -> bytes:
        received = self._socket.recv(_CHUNK)
        if not received:
            raise ProcessFailed("The server closed a connection in the middle of an answer.")
        return received
