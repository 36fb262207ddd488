"""The gateway answers only its own run's client, and bounds what that may send."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable

import pytest

from pipedai_worker.gateway import limits

from .conftest import Way, until
from .servers import McpServer

Open = Callable[..., Way]


def talk(way: Way, sent: bytes) -> bytes:
    """Send bytes, and return everything that comes until the gateway closes the connection."""
    place = ("127.0.0.1", way.client.place.port)
    with socket.create_connection(place, timeout=30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def asked(way: Way, *lines: str, method: str = "POST", body: bytes = b"") -> bytes:
    host = f"Host: 127.0.0.1:{way.client.place.port}"
    head = [f"{method} {way.client.place.path} HTTP/1.1", host, *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1"])
def test_a_page_in_a_browser_is_refused(server: McpServer, open_way: Open, origin: str) -> None:
    way = open_way(server.url)
    asking = way.client.request("ping")
    assert way.client.send("POST", asking, {"Origin": origin}).status == 403
    assert server.seen == []


@pytest.mark.parametrize("host", ["localhost:{port}", "evil.example", "127.0.0.1", "127.1:{port}"])
def test_another_host_is_refused(server: McpServer, open_way: Open, host: str) -> None:
    way = open_way(server.url)
    told = {"Host": host.format(port=way.client.place.port)}
    assert way.client.send("POST", way.client.request("ping"), told).status == 421
    assert server.seen == []


def test_two_hosts_or_none_are_refused(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    twice = f"Host: 127.0.0.1:{way.client.place.port}"
    assert b" 421 " in talk(way, asked(way, twice, method="GET"))
    assert b" 421 " in talk(way, f"GET {way.client.place.path} HTTP/1.1\r\n\r\n".encode())


def test_every_other_path_is_not_found(server: McpServer, open_way: Open) -> None:
    way, other = open_way(server.url), open_way(server.url)
    path = way.client.place.path
    assert len(path) > 40
    for wrong in ("/", "/mcp", path[:-1], path + "/", path.upper(), other.client.place.path, "*"):
        assert way.client.send("POST", way.client.request("ping"), path=wrong).status == 404
    known = "/.well-known/oauth-protected-resource"
    assert way.client.send("GET", path=known).status == 404
    assert server.seen == []


@pytest.mark.parametrize("method", ["PUT", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"])
def test_other_methods_are_refused(server: McpServer, open_way: Open, method: str) -> None:
    way = open_way(server.url)
    response = way.client.send(method)
    assert response.status == 405
    assert response.getheader("Allow") == "GET, POST, DELETE"
    assert server.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"[5]",
        b'"tools/call"',
        b"[" * 50_000,
        b'{"method": "ping", "method": "tools/call"}',
        # Servers in Go, for example, take these for `method`, `params` and `name`, whatever their letters.
        b'{"id": 1, "Method": "tools/call", "params": {"name": "send"}}',
        b'{"id": 1, "method": "tools/call", "param\xc5\xbf": {"name": "send"}}',
        b'{"id": 1, "method": "tools/call", "params": {"name": "look", "NAME": "send"}}',
        b'{"id": NaN, "method": "ping"}',
        b'{"id": 1, "method": "tools/\xed\xa0\x80call"}',
        '{"id": 1, "method": "ping"}'.encode("utf-16"),
        b"\xff\xfe",
        json.dumps({"id": "x" * 2000, "method": "ping"}).encode(),
        b'{"id": 1, "method": "ping", "params": [' + b"{}," * 500_000 + b"{}]}",
        json.dumps([{"jsonrpc": "2.0", "method": "ping"}] * (limits.MOST_MESSAGES + 1)).encode(),
    ],
)
def test_what_the_gateway_cannot_read_is_not_sent(
    server: McpServer, open_way: Open, body: bytes
) -> None:
    way = open_way(server.url)
    response = way.client.send("POST", body)
    assert response.status == 400
    assert json.loads(response.read())["error"]["code"] == -32700
    assert server.seen == []


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ([f"Content-Length: {limits.LARGEST_REQUEST + 1}"], b"", 413),
        (["Content-Length: 9", "Content-Length: 9"], b"{}", 400),
        (["Content-Length: +2"], b"{}", 400),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], b"0\r\n\r\n", 400),
        (["Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n", 400),
        (["Transfer-Encoding: chunked"], b"zz\r\n", 400),
        (["Transfer-Encoding: chunked"], b"ffffffff\r\n", 413),
        (["Transfer-Encoding: chunked"], b"2\r\n{}xx0\r\n\r\n", 400),
        (["Transfer-Encoding: chunked"], b"2" * 70_000 + b"\r\n", 400),
        (["X: " + "y" * 70_000], b"", 431),
        (["X Y: 1"], b"", 400),
        ([" folded: 1"], b"", 400),
        (["X: a\rb"], b"", 400),
        (["no colon"], b"", 400),
    ],
)
def test_malformed_requests_are_refused(
    server: McpServer, open_way: Open, lines: list[str], body: bytes, status: int
) -> None:
    way = open_way(server.url)
    assert talk(way, asked(way, *lines, body=body)).startswith(b"HTTP/1.1 %d " % status)
    assert server.seen == []


def test_a_long_header_takes_no_time(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    began = time.process_time()
    answer = talk(way, asked(way, "X:" + " " * 50_000 + "\x01"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert time.process_time() - began < 1


def test_a_refused_client_that_breaks_off_is_not_logged(
    server: McpServer, open_way: Open, caplog: pytest.LogCaptureFixture
) -> None:
    way = open_way(server.url)
    for _ in range(100):
        broken = socket.create_connection(("127.0.0.1", way.client.place.port), timeout=30)
        broken.sendall(b"GET / HTTP/1.1\r\n\r\n")
        broken.close()
    assert way.client.send("POST", way.client.request("ping")).status == 200
    assert not caplog.records


def test_a_stranger_is_refused_before_its_body_is_read(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{way.client.place.port}\r\n"
    with socket.create_connection(("127.0.0.1", way.client.place.port), timeout=30) as stranger:
        stranger.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        assert stranger.recv(65536).startswith(b"HTTP/1.1 404 ")


def test_bodies_together_take_bounded_memory(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_HELD", 1_000_000)
    way = open_way(server.url)
    place = ("127.0.0.1", way.client.place.port)
    with socket.create_connection(place, timeout=30) as first:
        first.sendall(asked(way, "Content-Length: 900000", "Expect: 100-continue"))
        assert first.recv(65536).startswith(b"HTTP/1.1 100 ")
        assert b" 503 " in talk(way, asked(way, "Content-Length: 200000"))
        chunk = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
        assert b" 503 " in talk(way, asked(way, "Transfer-Encoding: chunked", body=chunk * 2))
    until(lambda: way.client.send("POST", b" " * 900_000).status == 400)


def test_connections_of_strangers_make_way(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_STRANGERS", 5)
    way = open_way(server.url)
    mine = way.client.connect()
    assert way.client.send("POST", way.client.request("ping"), connection=mine).read()
    with contextlib.ExitStack() as stack:
        place = ("127.0.0.1", way.client.place.port)
        strangers = [
            stack.enter_context(socket.create_connection(place, timeout=30)) for _ in range(20)
        ]
        for gone in strangers[:15]:
            with contextlib.suppress(ConnectionResetError):
                assert gone.recv(1) == b""
        assert way.client.send("POST", way.client.request("ping"), connection=mine).status == 200
        assert way.client.send("POST", way.client.request("ping")).status == 200


def test_a_request_that_does_not_come_whole_ends(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.3)
    way = open_way(server.url)
    place = ("127.0.0.1", way.client.place.port)
    for begun in (b"", b"POST /", asked(way, "Content-Length: 9", body=b"{")):
        with socket.create_connection(place, timeout=30) as slow:
            slow.sendall(begun)
            with contextlib.suppress(ConnectionResetError):
                assert slow.recv(1) == b""
    kept = way.client.connect()
    way.client.send("POST", way.client.request("ping"), connection=kept).read()
    time.sleep(0.6)
    assert way.client.send("POST", way.client.request("ping"), connection=kept).status == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [("GET / HTTP/1.0", 505), ("get / HTTP/1.1", 400), ("GET  / HTTP/1.1", 400), ("\x16\x03", 400)],
)
def test_other_protocols_are_refused(
    server: McpServer, open_way: Open, line: str, status: int
) -> None:
    way = open_way(server.url)
    assert b" %d " % status in talk(way, line.encode() + b"\r\n\r\n")


def test_a_body_in_chunks_is_forwarded_whole(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    ping = b'{"jsonrpc":"2.0","method":"ping"}'
    chunks = b"3;x=y\r\n" + ping[:3] + b"\r\n1E\r\n" + ping[3:] + b"\r\n0\r\nT: 1\r\n\r\n"
    lines = ("Transfer-Encoding: chunked", "Expect: 100-continue")
    answer = talk(way, asked(way, *lines, body=chunks))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 ")
    assert server.seen[0][3] == {"jsonrpc": "2.0", "method": "ping"}
    assert server.lower(0)["content-length"] == str(len(ping))


def test_there_are_so_many_connections_at_most(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_CONNECTIONS", 3)
    way = open_way(server.url)
    kept = [way.client.connect() for _ in range(3)]
    for connection in kept:
        way.client.send("POST", way.client.request("ping"), connection=connection).read()
    assert way.client.send("POST", way.client.request("ping")).status == 503
    kept[0].close()
    for _ in range(1000):
        if way.client.send("POST", way.client.request("ping")).status == 200:
            break
    else:
        raise AssertionError("no place became free")
