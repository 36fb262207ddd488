"""A server that resets, stalls or floods costs its own call and nothing else; the end of the run ends everything."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.gateway import Credentials, Gateway, limits

from .conftest import Way, answer_in, events_in, held_gateway, until
from .servers import TOKEN, Exchange, McpServer

Open = Callable[..., Way]


def begun_then_cut(exchange: Exchange) -> None:
    exchange.events()
    exchange.chunk(b": hello\n\ndata: half")
    exchange.cut()


def half_json(exchange: Exchange) -> None:
    exchange.send_response(200)
    exchange.send_header("Content-Type", "application/json")
    exchange.send_header("Content-Length", "500")
    exchange.end_headers()
    exchange.wfile.write(b"{")
    exchange.cut()


def ended(exchange: Exchange) -> None:
    exchange.events()
    exchange.end()


@pytest.mark.parametrize("way", [Exchange.cut, half_json, begun_then_cut, ended])
def test_a_call_that_is_broken_off_is_unknown_and_told(
    server: McpServer, open_way: Open, way: Callable[[Exchange], None]
) -> None:
    server.ways["tools/call"] = way
    opened = open_way(server.url)
    assert "MCP server" in opened.client.call("look")["error"]["message"]
    assert opened.outcomes() == [("look", "possible", "unknown")]
    del server.ways["tools/call"]
    assert opened.client.call("look")["result"]
    assert opened.calls.counts()["unknown"] == 1


def test_a_stream_that_can_be_resumed_is_cut_off_for_the_cli_too(
    server: McpServer, open_way: Open
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.events()
        exchange.event("", before="id: 1\n")
        exchange.cut()

    server.ways["tools/call"] = answer
    way = open_way(server.url)
    response = way.client.send("POST", way.client.request("tools/call", name="look"))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()


def test_a_call_that_never_reached_the_server_is_an_error(open_way: Open) -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    way = open_way(f"http://127.0.0.1:{taken.getsockname()[1]}/mcp")
    message = way.client.call("look")["error"]["message"]
    assert message == "The MCP server can't be reached: it refused the connection."
    assert way.outcomes() == [("look", "possible", "error")]
    assert way.client.send("GET").status == 502
    assert way.client.send("DELETE").status == 502
    notified = way.client.send("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert notified.status == 502
    taken.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda exchange: exchange.whole(200, b"<html>", "text/html"),
        lambda exchange: exchange.whole(200, b"x" * 100_000, "text/plain"),
        lambda exchange: exchange.whole(
            200, b" " * (limits.LARGEST_ANSWER + 1), "application/json"
        ),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    server: McpServer, open_way: Open, answer: Callable[[Exchange], None]
) -> None:
    server.ways["tools/call"] = answer
    way = open_way(server.url)
    assert "MCP server's answer" in way.client.call("look")["error"]["message"]
    assert way.outcomes() == [("look", "possible", "error")]


def test_an_event_that_never_ends_is_refused(server: McpServer, open_way: Open) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.events()
        for _ in range(2 * limits.LARGEST_EVENT // limits.MIB):
            exchange.chunk(b"x" * limits.MIB)
        exchange.end()

    server.ways["tools/call"] = flood
    way = open_way(server.url)
    assert "MCP server" in way.client.call("look")["error"]["message"]


def test_a_flood_waits_for_its_reader(server: McpServer, open_way: Open) -> None:
    """A client that does not read stops the server, and the gateway holds next to nothing of what comes."""
    sent = 0
    stopped = threading.Event()

    def flood(exchange: Exchange) -> None:
        nonlocal sent
        exchange.events()
        exchange.connection.settimeout(2.0)
        event = b"data: " + b"x" * 10_000 + b"\n\n"
        try:
            while sent < 500 * limits.MIB:
                exchange.chunk(event)
                sent += len(event)
        finally:
            stopped.set()

    server.ways["GET"] = flood
    way = open_way(server.url)
    response = way.client.send("GET")
    next(events_in(response))
    assert stopped.wait(60)
    assert sent < 50 * limits.MIB
    assert way.client.call("look")["result"]


def test_a_server_that_is_silent_is_given_up_but_not_in_a_call(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.3)
    release = threading.Event()

    def stall(exchange: Exchange) -> None:
        if exchange.message["method"] == "tools/call":
            assert release.wait(30)
            server.behave(exchange)
        else:
            exchange.until_gone()

    server.ways["*"] = stall
    way = open_way(server.url)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(way.client.call("look")))
    thread.start()
    response = way.client.send("POST", way.client.request("tools/list"))
    sentence = json.loads(response.read())["error"]["message"]
    assert sentence == "The MCP server took too long to answer."
    release.set()
    thread.join()
    assert answers[0]["result"]


def test_the_server_hears_at_once_that_the_client_gave_a_call_up(
    server: McpServer, open_way: Open
) -> None:
    server.ways["tools/call"] = Exchange.until_gone
    way = open_way(server.url)
    connection = way.client.connect()
    body = json.dumps(way.client.request("tools/call", name="look"))
    connection.request("POST", way.client.place.path, body)
    until(lambda: server.seen)
    connection.close()
    assert server.left.wait(30)
    assert way.outcomes() == [("look", "possible", "unknown")]
    del server.ways["tools/call"]
    assert way.client.call("look")["result"]


def test_a_disk_that_fails_stops_the_call(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    way.calls.close()
    sentence = way.client.call("look")["error"]["message"]
    assert sentence == "The worker could not write this call down, so it was not sent."
    assert server.seen == []


def test_a_kill_between_a_call_and_its_answer_leaves_the_call_unknown(
    server: McpServer, tmp_path: Path
) -> None:
    server.ways["tools/call"] = Exchange.until_gone
    path = tmp_path / "calls"
    with held_gateway(server.url, path) as (process, client):
        client.send("POST", client.request("tools/list")).read()
        asked = json.dumps(client.request("tools/call", name="look"))
        client.connect().request("POST", client.place.path, asked)
        until(lambda: "tools/call" in server.methods())
        process.kill()
    left = ToolCalls.read(path)
    assert left.counts() == {"total": 1, "effects": 0, "unknown": 1}
    assert [(one["tool"], one["outcome"]) for one in left.listed()] == [("look", "unknown")]


def ours(thread: threading.Thread) -> bool:
    return thread.name.startswith(("gateway", "asyncio"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_the_end_leaves_no_socket_and_no_thread(server: McpServer, tmp_path: Path) -> None:
    server.ways["tools/call"] = Exchange.until_gone
    calls = ToolCalls(tmp_path / "calls")
    given = Credentials({"Authorization": TOKEN})
    threads, files = set(threading.enumerate()), open_files()
    with contextlib.ExitStack() as stack:
        gateway = Gateway(
            url=server.url,
            credentials=given,
            ask=lambda _: given,
            calls=calls,
            before_first_effect=lambda: None,
        )
        stack.enter_context(gateway)
        place = gateway.url.removeprefix("http://").partition("/")
        clients = []
        for method in ("POST", "GET", "IDLE"):
            client = http.client.HTTPConnection(place[0], timeout=30)
            clients.append(client)
            client.connect()
            if method != "IDLE":
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}}
                content = json.dumps(body) if method == "POST" else None
                client.request(method, f"/{place[2]}", content)
        until(lambda: len(server.seen) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert server.left.wait(30)
    for client in clients:
        assert client.sock is not None
        with contextlib.suppress(ConnectionResetError):
            while client.sock.recv(65536):
                pass
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(place[0].partition(":")[2])))
    assert calls.counts() == {"total": 1, "effects": 1, "unknown": 1}
    for pieces in server.streams.values():
        pieces.put(None)
    until(lambda: not [one for one in set(threading.enumerate()) - threads if ours(one)])
    until(lambda: open_files() <= files)
    calls.close()


def test_no_log_line_and_no_name_tells_a_secret(
    server: McpServer, open_way: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipedai_worker")
    server.ways["tools/call"] = Exchange.cut
    way = open_way(server.url)
    way.client.call("look")
    way.gateway.probe()
    told = caplog.text + repr(way.gateway) + repr(vars(way.gateway)["_upstream"])
    assert "planted" not in told.replace(server.url, "")


@pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="reads /proc")
def test_a_dead_peer_is_noticed_by_the_system(server: McpServer, open_way: Open) -> None:
    """The system asks the peer from time to time whether it lives: a keep-alive timer (02) runs."""
    server.ways["tools/call"] = Exchange.until_gone
    way = open_way(server.url)
    connection = way.client.connect()
    body = json.dumps(way.client.request("tools/call", name="look"))
    connection.request("POST", way.client.place.path, body)
    until(lambda: server.seen)
    peer = f"0100007F:{server.server_address[1]:04X}"

    def timers() -> list[str]:
        lines = Path("/proc/net/tcp").read_text().splitlines()
        return [fields[5][:2] for fields in map(str.split, lines) if fields[2] == peer]

    until(lambda: "02" in timers())


def test_answers_to_many_calls_at_once_are_not_mixed_up(server: McpServer, open_way: Open) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.events()
        number = exchange.message["id"]
        exchange.event({"jsonrpc": "2.0", "id": number, "result": {"structuredContent": number}})
        exchange.end()

    server.ways["tools/call"] = answer
    way = open_way(server.url)
    wrong: list[Any] = []

    def work() -> None:
        connection = way.client.connect()
        for _ in range(5):
            asked = way.client.request("tools/call", name="look")
            response = way.client.send("POST", asked, connection=connection)
            got = answer_in(response, asked["id"])["result"]["structuredContent"]
            response.read()
            if got != asked["id"]:
                wrong.append((asked["id"], got))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert way.calls.counts() == {"total": 40, "effects": 40, "unknown": 0}
