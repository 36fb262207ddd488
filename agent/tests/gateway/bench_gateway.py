"""Measures how much longer a tool call takes through a run's gateway than directly to the MCP server.

    PYTHONPATH=agent python agent/tests/gateway/bench_gateway.py --calls 500

The gateway is the local server through which a worker passes a run's tool calls on to the run's MCP server. Here a
small MCP server answers each call at once, as JSON or as a stream of events. The server and the gateway have processes
of their own, as in a worker. The client keeps one connection to each, and calls them alternately. Before a call the
gateway writes it to a file (the journal) and syncs the file to the disk; this time is included. `--directory` says
where that file is, because a sync costs nothing on a file system in memory. The exit code is 1 if the median call takes
more than 5 ms longer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.gateway import Credentials, Gateway
from pipedai_worker.stand_in.mcp_server import McpHandler, Tool

# The most milliseconds that the gateway may add to a tool call (docs/decisions/gateway.md).
LARGEST_COST_MS = 5.0
WARM_UP = 20
AGENT = Path(__file__).resolve().parents[2]
AS_SERVER, AS_GATEWAY = "--as-server", "--as-gateway"
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "Authorization": "Bearer of-the-bench",
}


@dataclass(frozen=True)
class Figures:
    """How many milliseconds a call takes, directly and through the gateway. `processor` is the gateway's CPU time."""

    answer: str
    calls: int
    direct_p50: float
    direct_p99: float
    gateway_p50: float
    gateway_p99: float
    processor: float

    @property
    def cost_p50(self) -> float:
        return self.gateway_p50 - self.direct_p50


class _Server(McpHandler):
    # The head of an answer and its body are sent together.
    wbufsize = -1
    tools = {"measured": Tool({"name": "measured"}, lambda _: "x" * 1000)}

    def do_POST(self) -> None:  # noqa: N802
        self.served_at = self.path
        super().do_POST()

    def reply(self, answered: dict[str, Any]) -> None:
        if self.path == "/json":
            super().reply(answered)
        else:
            body = b"event: message\ndata: " + json.dumps(answered).encode() + b"\n\n"
            self.whole(200, body, "text/event-stream")


class _Client:
    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._path = place.path
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        self._connection.connect()

    def call(self, number: int) -> float:
        params = {"name": "measured", "arguments": {"text": "y" * 200}}
        asked = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        body = json.dumps(asked).encode()
        began = time.perf_counter()
        self._connection.request("POST", self._path, body, HEADERS)
        response = self._connection.getresponse()
        answer = response.read()
        took = (time.perf_counter() - began) * 1000
        if response.status != 200 or b'"isError": false' not in answer:
            raise AssertionError(f"{response.status}: {answer[:200]!r}")
        return took

    def close(self) -> None:
        self._connection.close()


def measure(url: str, calls: int, journal: Path) -> Figures:
    """Make `calls` calls directly and as many through the gateway. The path of `url` says how the server answers."""
    direct: list[float] = []
    by_gateway: list[float] = []
    with _process(AS_GATEWAY, url, str(journal)) as (gateway, gateway_url):
        clients = _Client(url), _Client(gateway_url)
        for number in range(-WARM_UP, calls):
            for client, times in zip(clients, (direct, by_gateway)):
                took = client.call(number)
                if number >= 0:
                    times.append(took)
        for client in clients:
            client.close()
        told, _ = gateway.communicate()
    made = calls + WARM_UP
    if ToolCalls.read(journal).counts() != {"total": made, "effects": made, "unknown": 0}:
        raise AssertionError(ToolCalls.read(journal).counts())
    return Figures(
        urlsplit(url).path[1:],
        calls,
        *_percentiles(direct),
        *_percentiles(by_gateway),
        round(float(told) * 1000 / made, 2),
    )


@contextmanager
def _process(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command = [sys.executable, __file__, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(AGENT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        try:
            if process.stdout is None:
                raise AssertionError
            yield process, process.stdout.readline().decode().strip()
        finally:
            process.kill()


def _percentiles(times: list[float]) -> tuple[float, float]:
    hundredths = statistics.quantiles(times, n=100)
    return round(statistics.median(times), 2), round(hundredths[98], 2)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=500, help="each way (default %(default)d)")
    parser.add_argument(
        "--directory", type=Path, help="where the journal lies while it is measured"
    )
    options = parser.parse_args()
    with (
        _process(AS_SERVER) as (_, url),
        tempfile.TemporaryDirectory(dir=options.directory) as name,
    ):
        figures = [
            measure(f"{url}/{kind}", options.calls, Path(name) / kind)
            for kind in ("json", "events")
        ]
    for one in figures:
        print(json.dumps({**asdict(one), "cost_p50": round(one.cost_p50, 2)}))
    return 1 if any(one.cost_p50 >= LARGEST_COST_MS for one in figures) else 0


def _be_server() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


def _be_gateway(url: str, journal: str) -> None:
    """Serve as a gateway until stdin ends. Then print how many seconds of processor time that took."""
    calls = ToolCalls(Path(journal))
    given = Credentials({"Authorization": HEADERS["Authorization"]})
    with Gateway(
        url=url,
        credentials=given,
        ask=lambda _: given,
        calls=calls,
        before_first_effect=lambda: None,
    ) as gateway:
        print(gateway.url, flush=True)
        began = time.process_time()
        sys.stdin.read()
    print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [AS_SERVER]:
        _be_server()
    elif sys.argv[1:2] == [AS_GATEWAY]:
        _be_gateway(*sys.argv[2:])
    else:
        sys.exit(main())
