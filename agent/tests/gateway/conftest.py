"""Provides MCP servers, gateways to them, and a client that speaks to a gateway as the CLI does."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.gateway import Credentials, Gate, Gateway
from pipedai_worker.redact import Redactor

from .servers import TOKEN, McpServer, serving

SECONDS = 30
AGENT = Path(__file__).resolve().parents[2]


def until(what: Callable[[], Any]) -> None:
    """Wait until the call returns something true."""
    deadline = time.monotonic() + 2 * SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Client:
    """Speaks HTTP to a gateway, a connection for each request that is not told to use another one."""

    def __init__(self, url: str) -> None:
        self.place = urlsplit(url)
        self._ids = itertools.count(1)
        self._open: list[http.client.HTTPConnection] = []
        self._responses: list[http.client.HTTPResponse] = []

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=SECONDS)
        self._open.append(connection)
        return connection

    def send(
        self,
        method: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        path: str | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> http.client.HTTPResponse:
        connection = connection or self.connect()
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Accept": "application/json, text/event-stream", **(headers or {})}
        if content is not None:
            given.setdefault("Content-Type", "application/json")
        connection.request(method, path or self.place.path, content, given)
        response = connection.getresponse()
        self._responses.append(response)
        return response

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool, and return the message that answers."""
        asked = self.request("tools/call", name=tool, arguments=arguments)
        response = self.send("POST", asked)
        if (response.getheader("Content-Type") or "").startswith("text/event-stream"):
            return answer_in(response, asked["id"])
        return json.loads(response.read())

    def close(self) -> None:
        for response in self._responses:
            response.close()
        for connection in self._open:
            connection.close()


def events_in(response: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    """Yield the fields of each event as it comes."""
    fields: dict[str, str] = {}
    while line := response.readline():
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}


def answer_in(response: http.client.HTTPResponse, number: int) -> Any:
    """Return the message on a stream that answers a request."""
    for event in events_in(response):
        message = json.loads(event.get("data") or "{}")
        if message.get("id") == number and "method" not in message:
            return message
    raise AssertionError("the stream ended without the answer")


class Way:
    """A gateway, its journal, and a client of it."""

    def __init__(
        self, gateway: Gateway, calls: ToolCalls, client: Client, gate: Gate | None
    ) -> None:
        self.gateway = gateway
        self.gate = gate
        self.calls = calls
        self.client = client

    def outcomes(self) -> list[tuple[str, str, str]]:
        return [(item["tool"], item["effect"], item["outcome"]) for item in self.calls.listed()]


HOLDER = """
import sys
from pathlib import Path
from pipedai_worker.gateway import Credentials, Gateway
from pipedai_worker.disk.tool_calls import ToolCalls

_, url, path, token = sys.argv
given, calls = Credentials({"Authorization": token}), ToolCalls(Path(path))
with Gateway(
    url=url, credentials=given, ask=lambda _: given, calls=calls, before_first_effect=lambda: None
) as gateway:
    print(gateway.url, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_gateway(url: str, path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """Open a gateway in a process of its own, whose journal is the file `path`. Yield the process, and a client."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, str(path), TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(AGENT)},
    ) as process:
        assert process.stdout is not None
        client = Client(process.stdout.readline().decode().strip())
        try:
            yield process, client
        finally:
            client.close()
            process.kill()


@pytest.fixture
def open_way(tmp_path: Path) -> Iterator[Callable[..., Way]]:
    """Open a gateway to a server's URL, with the token that good servers want."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def make(
            url: str,
            *,
            headers: dict[str, str] | None = None,
            first: Callable[[], None] = lambda: None,
            expire_in: float | None = None,
            ask: Callable[[bool], Credentials] | None = None,
            gate: Gate | None = None,
            redactor: Redactor | None = None,
        ) -> Way:
            calls = ToolCalls(tmp_path / f"calls-{next(numbers)}.jsonl", redactor)
            stack.callback(calls.close)
            told = {"Authorization": TOKEN} if headers is None else headers
            expire_at = None if expire_in is None else time.monotonic() + expire_in
            given = Credentials(told, expire_at)
            gateway = Gateway(
                url=url,
                credentials=given,
                ask=ask or (lambda _: given),
                calls=calls,
                before_first_effect=first,
                gate=gate,
            )
            stack.enter_context(gateway)
            client = Client(gateway.url)
            stack.callback(client.close)
            return Way(gateway, calls, client, gate)

        yield make


@pytest.fixture
def server() -> Iterator[McpServer]:
    with serving(McpServer()) as made:
        yield made
