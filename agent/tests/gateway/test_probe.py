"""Before anything is spent the server is asked for its tools; what is wrong with it is told in one sentence."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipedai_worker.gateway import limits
from pipedai_worker.running.outcome import CLIENT, INFRA, Fault

from .conftest import Way
from .servers import TOKEN, TOOLS, Exchange, McpServer, raw_server, serving

Open = Callable[..., Way]


def probe(way: Way) -> tuple[str, str]:
    fault = way.gateway.probe()
    assert isinstance(fault, Fault)
    assert "planted" not in fault.sentence
    assert fault.sentence.endswith(".")
    return fault.fault_class, fault.sentence


@pytest.mark.parametrize("as_events", [False, True])
@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
def test_a_good_server_is_asked_as_a_client_asks(
    server: McpServer, open_way: Open, as_events: bool, version: str
) -> None:
    server.as_events = as_events
    server.version = version
    server.tools = [TOOLS[:1], TOOLS[1:]]
    way = open_way(server.url)
    assert way.gateway.probe() is None
    assert server.methods() == [
        "initialize",
        "notifications/initialized",
        "tools/list",
        "tools/list",
        "DELETE",
    ]
    for which in range(1, 5):
        assert server.lower(which)["mcp-session-id"] == "session-1"
        assert server.lower(which)["mcp-protocol-version"] == version
    assert way.calls.counts() == {"total": 0, "effects": 0, "unknown": 0}
    way.client.call("set")
    assert way.outcomes() == [("set", "idempotent", "ok")]


def test_a_server_without_tools_can_be_used(server: McpServer, open_way: Open) -> None:
    server.ways["initialize"] = lambda exchange: exchange.result(
        {"protocolVersion": "2025-06-18", "capabilities": {"prompts": {}}}
    )
    assert open_way(server.url).gateway.probe() is None
    assert "tools/list" not in server.methods()


def test_a_server_that_has_no_initialize_any_more_is_asked(
    server: McpServer, open_way: Open
) -> None:
    error = {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}
    server.ways["initialize"] = lambda exchange: exchange.json(
        {"jsonrpc": "2.0", "id": exchange.message["id"], "error": error}, 400
    )
    way = open_way(server.url)
    assert way.gateway.probe() is None
    assert server.methods() == ["initialize", "tools/list"]
    assert server.lower(-1)["mcp-protocol-version"] == "2026-07-28"
    assert server.lower(-1)["mcp-method"] == "tools/list"
    assert "io.modelcontextprotocol/clientInfo" in server.seen[-1][3]["params"]["_meta"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 599])
def test_trouble_that_passes_is_infra(server: McpServer, open_way: Open, status: int) -> None:
    server.ways["*"] = lambda exchange: exchange.whole(status, TOKEN.encode(), "text/html")
    fault_class, sentence = probe(open_way(server.url))
    assert fault_class == INFRA
    assert str(status) in sentence


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 405, 410, 418])
def test_other_statuses_are_the_clients_fault(
    server: McpServer, open_way: Open, status: int
) -> None:
    server.ways["*"] = lambda exchange: exchange.whole(
        status, b"planted", "text/html", Location="/elsewhere?planted"
    )
    fault_class, sentence = probe(open_way(server.url))
    assert fault_class == CLIENT
    assert str(status) in sentence
    assert ("MCP headers" in sentence) == (status in {401, 403})
    assert ("redirect" in sentence) == (status < 400)
    # So a server answers that only has MCP's deprecated transport.
    assert ("deprecated HTTP+SSE transport" in sentence) == (status in {404, 405})
    assert len(server.seen) == 1


def test_a_wrong_token_is_told(server: McpServer, open_way: Open) -> None:
    _, sentence = probe(open_way(server.url, headers={"Authorization": "Bearer planted"}))
    assert sentence.startswith("The MCP server answered 401: it refused the trigger's MCP headers")


def answering(value: Any, kind: str = "application/json") -> Callable[[Exchange], None]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda exchange: exchange.whole(200, body, kind)


ANSWER = {"jsonrpc": "2.0", "id": 1}
GOOD = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}


@pytest.mark.parametrize(
    "way",
    [
        answering(b"<html>planted</html>", "text/html"),
        answering(b"<html>planted</html>"),
        answering(b""),
        answering(b"[" * 100_000),
        answering([]),
        answering("planted"),
        answering({**ANSWER, "id": 2, "result": GOOD}),
        answering({"id": 1, "result": GOOD}),
        answering({**ANSWER, "result": "planted"}),
        answering({**ANSWER, "result": {}}),
        answering({**ANSWER, "result": {**GOOD, "protocolVersion": "1999-01-01"}}),
        answering({**ANSWER, "result": {**GOOD, "protocolVersion": ["2025-06-18"]}}),
        answering({**ANSWER, "error": {"code": -32602, "message": TOKEN}}),
        answering({**ANSWER, "error": TOKEN}),
        answering(b"data: {}\n\n", "text/event-stream"),
        answering(b" " * (limits.LARGEST_TOOLS_LIST + 1)),
        answering(b"data: " + b"x" * limits.LARGEST_TOOLS_LIST, "text/event-stream"),
        lambda exchange: exchange.result(GOOD, Content_Encoding="gzip"),
        lambda exchange: exchange.result(GOOD, Mcp_Session_Id="two words"),
        lambda exchange: exchange.result(GOOD, Mcp_Session_Id="\u00e2\u009c\u0093"),
        lambda exchange: exchange.result(GOOD, Mcp_Session_Id="x" * 2000),
        lambda exchange: exchange.whole(202),
    ],
)
def test_a_server_that_speaks_no_mcp_is_the_clients_fault(
    server: McpServer, open_way: Open, way: Callable[[Exchange], None]
) -> None:
    server.ways["initialize"] = way
    assert probe(open_way(server.url))[0] == CLIENT


def test_a_code_of_thousands_of_digits_is_not_told(server: McpServer, open_way: Open) -> None:
    server.ways["initialize"] = answering({**ANSWER, "error": {"code": 10**4000, "message": "no"}})
    assert probe(open_way(server.url)) == (
        CLIENT,
        "The MCP server answered `initialize` with an error.",
    )


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"tools": "planted"},
        {"tools": [], "nextCursor": 5},
        {"tools": [], "nextCursor": "again"},
        {"tools": [{"name": "x" * 100, "description": "y" * (10 * 1024 * 1024)}]},
    ],
)
def test_a_list_of_tools_that_is_none_is_the_clients_fault(
    server: McpServer, open_way: Open, result: Any
) -> None:
    server.ways["tools/list"] = lambda exchange: exchange.result(result)
    fault_class, sentence = probe(open_way(server.url))
    assert fault_class == CLIENT
    assert "tools" in sentence


def test_a_list_without_end_is_the_clients_fault(server: McpServer, open_way: Open) -> None:
    server.tools = [[] for _ in range(limits.MOST_TOOLS_PAGES + 1)]
    assert probe(open_way(server.url)) == (
        CLIENT,
        "The MCP server's list of tools has more than 100 pages.",
    )


def test_many_pages_are_bounded_together(server: McpServer, open_way: Open) -> None:
    server.tools = [[{"name": "x", "description": "y" * 1024 * 1024}] for _ in range(6)]
    assert "larger than 4 MiB" in probe(open_way(server.url))[1]
    assert server.methods().count("tools/list") == 4


def test_a_session_is_ended_although_its_tools_are_none(server: McpServer, open_way: Open) -> None:
    server.ways["tools/list"] = lambda exchange: exchange.whole(500)
    assert probe(open_way(server.url))[0] == INFRA
    assert server.methods()[-1] == "DELETE"


def test_a_farewell_is_not_waited_for(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FAREWELL_SECONDS", 0.1)
    server.ways["DELETE"] = Exchange.until_gone
    assert open_way(server.url).gateway.probe() is None
    assert server.left.wait(30)


def test_a_proxy_that_wants_a_login_is_infra(server: McpServer, open_way: Open) -> None:
    server.ways["*"] = lambda exchange: exchange.whole(407, b"planted", "text/html")
    assert probe(open_way(server.url))[0] == INFRA


def test_a_closed_gateway_can_not_ask(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    way.gateway.__exit__()
    assert probe(way)[0] == INFRA


def test_strange_tools_have_every_effect(server: McpServer, open_way: Open) -> None:
    hints: list[Any] = [None, [], {"readOnlyHint": "yes"}, {"idempotentHint": 1}, "x"]
    server.tools = [[{"name": f"t{n}", "annotations": hint} for n, hint in enumerate(hints)]]
    server.tools[0] += [{"name": 5}, "x", None, {}]  # type: ignore[list-item]
    way = open_way(server.url)
    assert way.gateway.probe() is None
    for number in range(len(hints)):
        way.client.call(f"t{number}")
    assert way.calls.counts()["effects"] == len(hints)


def test_a_stream_without_end_is_infra(server: McpServer, open_way: Open) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.events()
        while True:
            exchange.chunk(b": planted\n\n" * 5000 + b"data: {}\n\n" * 2000)

    server.ways["initialize"] = flood
    began = time.monotonic()
    assert probe(open_way(server.url)) == (INFRA, "The MCP server sends and sends, but no answer.")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n",
    ],
)
def test_a_server_that_stalls_is_infra_when_the_time_is_over(
    open_way: Open, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(limits, "PROBE_SECONDS", 0.5)

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        while True:
            time.sleep(0.05)
            connection.sendall(b"x" if b"Slow" in begin else b"")

    with raw_server(talk) as url:
        fault = probe(open_way(url))
    assert fault == (INFRA, "The MCP server did not tell its tools within 0.5 s.")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-planted\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Type: application/json\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n" + b"X-Flood: planted\r\n" * 20_000,
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\n: x\n\n\r\n"
        ),
    ],
)
def test_a_server_that_breaks_off_is_infra(open_way: Open, said: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with raw_server(talk) as url:
        assert probe(open_way(url))[0] == INFRA


def test_a_server_that_cannot_be_reached_is_infra(open_way: Open) -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp?key=planted"
    refused = "The MCP server can't be reached: it refused the connection."
    assert probe(open_way(url)) == (INFRA, refused)
    taken.close()
    fault = probe(open_way("https://no-such-host.invalid/mcp?key=planted"))
    assert fault == (INFRA, "The MCP server can't be reached: the name of its host is not found.")


def test_tls_to_a_plain_port_is_infra(server: McpServer, open_way: Open) -> None:
    fault = probe(open_way(server.url.replace("http://", "https://")))
    assert fault == (INFRA, "The MCP server can't be reached: it does not speak TLS as it should.")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://planted/",
        "http://",
        "http://[planted/",
        "http://a:99999999/planted",
        "http://planted:planted@a/",
    ],
)
def test_a_url_that_is_none_is_the_clients_fault(open_way: Open, url: str) -> None:
    assert probe(open_way(url))[0] == CLIENT


@pytest.mark.parametrize(
    "headers",
    [{"X-Key": "planted\r\nX: 1"}, {"X Key": "planted"}, {"": "planted"}, {"X\u00e9": "planted"}],
)
def test_a_header_that_cannot_be_sent_is_the_clients_fault(
    server: McpServer, open_way: Open, headers: dict[str, str]
) -> None:
    way = open_way(server.url, headers=headers)
    fault_class, sentence = probe(way)
    assert fault_class == CLIENT
    assert "characters" in sentence
    assert server.seen == []
    assert "characters" in way.client.call("look")["error"]["message"]


def test_no_environment_leads_the_headers_elsewhere(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's proxy is used as the CLI itself would use it, and `no_proxy` as well."""
    with serving(McpServer()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.origin)
        monkeypatch.setenv("no_proxy", "")
        assert open_way(server.url).gateway.probe() is None
        assert {path for _, path, _, _ in proxy.seen} == {server.url}
        assert server.seen == []
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert open_way(server.url).gateway.probe() is None
        assert server.seen != []


def test_a_proxy_that_can_not_be_used_is_infra(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "nonsense://planted:planted@[")
    monkeypatch.setenv("no_proxy", "")
    fault = probe(open_way(server.url))
    assert fault == (INFRA, "The worker's proxy for the MCP server can't be used.")


def test_the_end_of_the_gateway_ends_the_probe(open_way: Open) -> None:
    asked = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        asked.set()
        connection.recv(1)

    with raw_server(talk) as url:
        way = open_way(url)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(way.gateway.probe()))
        thread.start()
        assert asked.wait(30)
        way.gateway.__exit__()
        thread.join(30)
    assert found[0] is not None
    assert found[0].fault_class == INFRA
