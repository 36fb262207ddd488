"""An API that floods, drips or compresses its answers costs the worker one failed request, and next to no memory."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from testing.world.cases import cases

from pipedai_worker import api as worker_api
from pipedai_worker.api import Api, Bounds, Unavailable

from .gateway.servers import raw_server

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024
Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def api_that(talk: Talk) -> Iterator[Api]:
    with raw_server(talk) as url, contextlib.closing(Api(url.removesuffix("/mcp"))) as api:
        yield api


def drips(begin: bytes, piece: bytes = b"x") -> Talk:
    """Answer with `begin`, and then with one piece after the other, until the client has had enough."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        while True:
            time.sleep(0.05)
            connection.sendall(piece)

    return talk


def floods(begin: bytes, piece: bytes, sent: list[int]) -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        while sum(sent) < 200 * MIB:
            connection.sendall(piece)
            sent.append(len(piece))

    return talk


def test_an_answer_that_is_compressed_is_not_read() -> None:
    asked = []

    def bomb(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        body = gzip.compress(b'{"run": null, "x": "' + b" " * 10 * MIB + b'"}')
        head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(OK + head + body)

    with api_that(bomb) as api, pytest.raises(Unavailable, match="compressed its answer"):
        api.claim_next("mine", 0)
    assert b"accept-encoding: identity\r\n" in asked[0].lower()


@cases(
    ("begin", "piece", "sentence"),
    [
        (OK + b"\r\n", b" " * MIB, "larger than 8192 KiB"),
        (CHUNKED, b"100000\r\n" + b" " * MIB + b"\r\n", "larger than 8192 KiB"),
    ],
)
def test_an_answer_without_end_is_given_up(begin: bytes, piece: bytes, sentence: str) -> None:
    sent: list[int] = []
    with (
        api_that(floods(begin, piece, sent)) as api,
        pytest.raises(Unavailable, match=sentence),
    ):
        api.claim_next("mine", 0)
    assert sum(sent) < 50 * MIB


def test_each_kind_of_answer_has_a_bound_of_its_own() -> None:
    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            body = b'{"run": null, "x": "' + b" " * 4 * MIB + b'"}'
            connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with api_that(talk) as api:
        assert api.claim_next("mine", 0) is None
        with pytest.raises(Unavailable, match="larger than 2048 KiB"):
            api.health()


@pytest.mark.parametrize(
    "talk",
    [
        drips(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        drips(OK + b"Content-Length: 5000\r\n\r\n"),
        drips(CHUNKED, b"1\r\n \r\n"),
        drips(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
)
def test_an_answer_that_drips_is_given_up(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_api, "PAGE", Bounds(seconds=0.5))
    with api_that(talk) as api, pytest.raises(Unavailable, match=r"too long to answer|timed out"):
        api.claim_next("mine", 0)


def test_a_request_that_is_read_slowly_is_given_up() -> None:
    def talk(connection: socket.socket) -> None:
        while connection.recv(256 * 1024):
            time.sleep(0.05)

    with api_that(talk) as api, pytest.raises(Unavailable, match="too long to answer"):
        api._send("POST", "/slow", content=bytes(50 * MIB), bounds=Bounds(seconds=0.5))


def test_a_name_that_is_looked_up_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30))
    began = time.monotonic()
    with contextlib.closing(Api("http://api.example")) as api:
        with pytest.raises(Unavailable, match="too long to answer"):
            api._send("GET", "/health", bounds=Bounds(seconds=0.5))
        assert time.monotonic() - began < 8
    over.set()
