"""A hostile MCP server costs no memory and no time beyond its bounds; a hostile neighbour keeps no client away."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.gateway import limits, messages
from pipedai_worker.running.outcome import CLIENT, Fault
from pipedai_worker.values import MOST_VALUES

from .conftest import Way, held_gateway
from .servers import Exchange, McpServer, raw_server

Open = Callable[..., Way]
TOO_MANY = "The MCP server's answer has too many values."
TOO_LONG = "The MCP server took too long to answer."


def brackets(exchange: Exchange, size: int) -> bytes:
    """Return an answer of this size that would take twenty times as much memory once it is parsed."""
    head = f'{{"jsonrpc":"2.0","id":{exchange.message["id"]},"result":{{"x":['.encode()
    return head + b"{}," * (size // 3) + b"{}]}}"


def peak(process: subprocess.Popen[bytes]) -> int:
    """Return the most memory that a process has had, in MiB."""
    told = Path(f"/proc/{process.pid}/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc")
def test_brackets_take_no_memory(server: McpServer, tmp_path: Path) -> None:
    largest = limits.LARGEST_ANSWER - 1000

    def as_json(exchange: Exchange) -> None:
        exchange.whole(200, brackets(exchange, largest), "application/json")

    def as_event(exchange: Exchange) -> None:
        exchange.events()
        exchange.event(brackets(exchange, largest).decode())
        exchange.end()

    path = tmp_path / "calls"
    with held_gateway(server.url, path) as (process, client):
        client.call("look")
        before = peak(process)
        server.ways["tools/call"] = as_json
        assert client.call("look")["error"]["message"] == TOO_MANY
        server.ways["tools/call"] = as_event
        assert "MCP server" in client.call("look")["error"]["message"]
        assert peak(process) - before < 200
        del server.ways["tools/call"]
        assert client.call("look")["result"]
    outcomes = [one["outcome"] for one in ToolCalls.read(path).listed()]
    assert outcomes == ["ok", "error", "unknown", "ok"]


@pytest.mark.parametrize("as_event", [False, True])
def test_brackets_are_the_clients_fault(server: McpServer, open_way: Open, as_event: bool) -> None:
    def answer(exchange: Exchange) -> None:
        body = brackets(exchange, 3 * limits.MIB)
        if as_event:
            exchange.events()
            exchange.event(body.decode())
            exchange.end()
        else:
            exchange.whole(200, body, "application/json")

    server.ways["tools/list"] = answer
    assert open_way(server.url).gateway.probe() == Fault(CLIENT, TOO_MANY)


def test_a_large_answer_with_few_values_is_passed_on(server: McpServer, open_way: Open) -> None:
    text = "{[," * (MOST_VALUES // 4) + "x" * limits.MIB
    server.ways["tools/call"] = lambda exchange: exchange.result({"content": text})
    way = open_way(server.url)
    assert way.client.call("look")["result"] == {"content": text}
    assert way.outcomes() == [("look", "possible", "ok")]


def test_large_messages_are_parsed_one_at_a_time_apart_from_every_loop() -> None:
    message = bytes(limits.LARGE_MESSAGE)
    busy = threading.Lock()
    threads: set[str] = set()
    together: list[bool] = []

    def read(_: bytes) -> None:
        free = busy.acquire(blocking=False)
        together.append(not free)
        threads.add(threading.current_thread().name)
        time.sleep(0.01)
        if free:
            busy.release()

    async def work() -> None:
        await asyncio.gather(*(messages.read_apart(message, read) for _ in range(5)))

    loops = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(3)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    assert together == [False] * 15
    assert len(threads) == 1
    assert not threads & {loop.name for loop in loops}


def drip(exchange: Exchange, piece: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            time.sleep(0.05)
            exchange.wfile.write(piece)
    exchange.server.left.set()


def drip_json(exchange: Exchange) -> None:
    exchange.send_response(200 if exchange.command == "POST" else 404)
    exchange.send_header("Content-Type", "application/json")
    exchange.send_header("Content-Length", "50000")
    exchange.end_headers()
    drip(exchange, b" ")


def drip_events(exchange: Exchange) -> None:
    exchange.events()
    drip(exchange, b"3\r\n:\n\n\r\n")


@pytest.mark.parametrize("way", [drip_json, drip_events])
def test_an_initialize_that_drips_is_given_up(
    server: McpServer,
    open_way: Open,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[Exchange], None],
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.5)
    server.ways["initialize"] = way
    opened = open_way(server.url)
    response = opened.client.send("POST", opened.client.request("initialize"))
    assert b"The MCP server" in response.read()
    assert server.left.wait(30)


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 103 Early\r\n\r\n"])
def test_a_head_that_drips_is_given_up(
    open_way: Open, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.5)

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        while True:
            time.sleep(0.05)
            connection.sendall(b"x" if b"Slow" in begin else begin)

    with raw_server(talk) as url:
        way = open_way(url)
        response = way.client.send("POST", way.client.request("initialize"))
        assert json.loads(response.read())["error"]["message"] == TOO_LONG


def test_the_refusal_of_a_stream_may_not_drip_but_a_call_may_take_long(
    server: McpServer, open_way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.3)

    def slowly(exchange: Exchange) -> None:
        answer = json.dumps({"jsonrpc": "2.0", "id": exchange.message["id"], "result": {}})
        exchange.send_response(200)
        exchange.send_header("Content-Type", "application/json")
        exchange.send_header("Content-Length", str(len(answer)))
        exchange.end_headers()
        for character in answer:
            time.sleep(0.02)
            exchange.wfile.write(character.encode())

    server.ways.update({"GET": drip_json, "tools/call": slowly})
    way = open_way(server.url)
    assert way.client.send("GET").status == 502
    assert way.client.call("look")["result"] == {}


def test_a_crowd_of_strangers_keeps_no_client_away(server: McpServer, tmp_path: Path) -> None:
    """Clients connect and send their requests before the gateway takes their connections, and a crowd comes after."""
    with (
        held_gateway(server.url, tmp_path / "calls") as (process, client),
        contextlib.ExitStack() as crowd,
    ):
        place = ("127.0.0.1", client.place.port)

        def strangers(number: int) -> None:
            for _ in range(number):
                crowd.enter_context(socket.create_connection(place, timeout=30))

        strangers(limits.MOST_STRANGERS)
        os.kill(process.pid, signal.SIGSTOP)
        calls: list[http.client.HTTPConnection] = []
        try:
            for _ in range(6):
                strangers(4)
                calls.append(client.connect())
                calls[-1].connect()
                asked = client.request("tools/call", name="look")
                calls[-1].request("POST", client.place.path, json.dumps(asked))
            strangers(limits.MOST_STRANGERS)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert [call.getresponse().status for call in calls] == [200] * 6
