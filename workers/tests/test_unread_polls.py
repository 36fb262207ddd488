"""A worker may have two polls whose answers nobody reads; each counts until its answer is sent."""

import json
import socket
from contextlib import ExitStack
from typing import Any

import httpx

from pipedai.server.tests.web_process import parse, read_all
from testing.processes.web_process import Server
from testing.processes.worker_process import until
from testing.world.cast import Cast
from testing.world.runs import Runs, allow
from workers.registration import Registered


def _request(worker: Registered, token: str, query: str = "") -> bytes:
    lines = (
        f"GET /api/v1/workers/{worker.worker_id}/poll{query} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _deaf(server: Server, request: bytes) -> socket.socket:
    """Sends a request over a connection that receives as little of the answer as possible."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    url = httpx.URL(server.url)
    connection.connect((url.host, url.port))
    connection.sendall(request)
    return connection


def _poll(server: Server, request: bytes) -> tuple[int, dict[str, str], Any]:
    with _deaf(server, request) as connection:
        status, headers, body = parse(read_all(connection))
    return status, headers, json.loads(body)


def test_unread_polls_take_their_workers_places_and_nobody_elses(
    committed_cast: Cast, server: Server
) -> None:
    worker = committed_cast.worker
    other = committed_cast.register("host-2", max_concurrency=50)
    runs = Runs.of(committed_cast, prompt="x" * 256 * 1024)
    allow(worker.worker_id, 50)
    for _ in range(16):
        runs.queue()
    plain = _request(worker, worker.worker_token)
    with ExitStack() as at_the_end:
        for _ in range(2):
            connection = at_the_end.enter_context(_deaf(server, plain))
            assert connection.recv(12) == b"HTTP/1.1 200"
        for query in ("", "?wait=0", "?wait=00"):
            status, headers, body = _poll(server, _request(worker, worker.worker_token, query))
            assert (status, headers["retry-after"], body["code"]) == (429, "1", "throttled")
        # A caller that is not the worker takes none of its places, and gets the usual answer.
        assert _poll(server, _request(worker, other.worker_token))[0] == 404
        assert _poll(server, _request(worker, "wkt_nobody"))[0] == 401
        for _ in range(3):
            assert _poll(server, _request(other, other.worker_token))[0] == 200
    status, _, body = until(lambda: answer if (answer := _poll(server, plain))[0] == 200 else None)
    assert len(body["runs"]) == 15
    # Polls whose answers are read may follow each other at once.
    assert [_poll(server, plain)[0] for _ in range(5)] == [200] * 5
