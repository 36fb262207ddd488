"""An API that floods, drips or compresses its answers costs the worker one failed request, and next to no memory."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from pipedai_worker import api as requests
from pipedai_worker.answers import Unavailable
from pipedai_worker.api import Api
from pipedai_worker.bounded_transport import EXTENSION, BoundedTransport, Bounds

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
        body = gzip.compress(b'{"runs": [], "x": "' + b" " * 10 * MIB + b'"}')
        head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(OK + head + body)

    with api_that(bomb) as api, pytest.raises(Unavailable, match="compressed its answer"):
        api.poll(0)
    assert b"accept-encoding: identity\r\n" in asked[0].lower()


@pytest.mark.parametrize(
    ("begin", "piece", "sentence"),
    [
        (OK + b"\r\n", b" " * MIB, "larger than 8192 KiB"),
        (CHUNKED, b"100000\r\n" + b" " * MIB + b"\r\n", "larger than 8192 KiB"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, "too much before it answers"),
    ],
)
def test_an_answer_without_end_is_given_up(begin: bytes, piece: bytes, sentence: str) -> None:
    sent: list[int] = []
    with (
        api_that(floods(begin, piece, sent)) as api,
        pytest.raises(Unavailable, match=sentence),
    ):
        api.poll(0)
    assert sum(sent) < 50 * MIB


def test_each_kind_of_answer_has_a_bound_of_its_own() -> None:
    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            body = b'{"runs": [], "x": "' + b" " * 4 * MIB + b'"}'
            connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with api_that(talk) as api:
        assert api.poll(0) == []
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
    monkeypatch.setattr(requests, "PAGE", Bounds(seconds=0.5))
    with api_that(talk) as api, pytest.raises(Unavailable, match=r"too long to answer|timed out"):
        api.poll(0)


def test_a_request_that_is_read_slowly_is_given_up() -> None:
    def talk(connection: socket.socket) -> None:
        while connection.recv(256 * 1024):
            time.sleep(0.05)

    with (
        raw_server(talk) as url,
        httpx.Client(transport=BoundedTransport(), timeout=30) as client,
        pytest.raises(httpx.TimeoutException),
    ):
        client.post(url, content=bytes(200 * MIB), extensions={EXTENSION: Bounds(seconds=0.5)})


def test_a_stream_of_events_may_last_but_its_refusal_may_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "STREAM", Bounds(seconds=0.5, largest=MIB, streams=True))
    events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with api_that(drips(events, b": " + b"x" * MIB + b"\n\n")) as api:
        began = time.monotonic()
        with contextlib.closing(api.stream_events("run", 0)) as pieces:
            size = 0
            for piece in itertools.takewhile(bool, pieces):
                size += len(piece or b"")
                if size > 3 * MIB and time.monotonic() - began > 1:
                    break
    assert size > 3 * MIB
    for talk in (
        drips(b"HTTP/1.1 503 No\r\n\r\n"),
        floods(b"HTTP/1.1 503 No\r\n\r\n", bytes(MIB), []),
    ):
        with api_that(talk) as api, pytest.raises(Unavailable, match=r"too long|timed|larger"):
            next(api.stream_events("run", 0))
