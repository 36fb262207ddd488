"""The older transport: a stream of events, whose first one names the URL for POSTs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from .conftest import Way, answer_in, events_in
from .servers import Exchange, McpServer

Open = Callable[..., Way]


def test_the_gateway_names_its_own_endpoint(older: McpServer, open_way: Open) -> None:
    way = open_way(older.url)
    assert way.gateway.url.endswith("/sse")
    assert way.gateway.probe() is None
    stream = way.client.send("GET")
    events = events_in(stream)
    told = next(events)
    base = way.client.place.path.removesuffix("/sse")
    assert told["event"] == "endpoint"
    assert told["data"].startswith(base + "/messages/")
    asked = way.client.request("tools/call", name="look")
    response = way.client.send("POST", asked, path=told["data"])
    assert (response.status, response.read()) == (202, b"")
    assert answer_in(stream, asked["id"])["result"]["isError"] is False
    assert way.outcomes() == [("look", "none", "ok")]
    assert older.seen[-1][1].startswith("/messages?session=")


def test_answers_are_matched_by_stream(older: McpServer, open_way: Open) -> None:
    way = open_way(older.url)
    first, second = way.client.send("GET"), way.client.send("GET")
    events = [events_in(first), events_in(second)]
    places = [next(one)["data"] for one in events]
    assert places[0] != places[1]
    older.ways["tools/call"] = lambda exchange: exchange.whole(200, b"Accepted", "text/plain")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "look"}}
    for place in places:
        way.client.send("POST", call, path=place).read()
    older.streams["/messages?session=1"].put(b'data: {"id":1,"result":{}}\n\n')
    next(events[1])
    assert [outcome for _, _, outcome in way.outcomes()] == ["unknown", "ok"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:1/messages",
        "//other.example/messages",
        "https://127.0.0.1/x",
        "http://a@{place}/x",
        "http://[",
        "x" * 9000,
    ],
)
def test_an_endpoint_of_another_origin_is_refused(
    older: McpServer, open_way: Open, endpoint: str
) -> None:
    told = endpoint.format(place=older.origin.removeprefix("http://"))

    def stream(exchange: Exchange) -> None:
        exchange.events()
        exchange.chunk(f"event: endpoint\ndata: {told}\n\n".encode())
        exchange.until_gone()

    older.ways["GET"] = stream
    way = open_way(older.url)
    fault = way.gateway.probe()
    assert fault is not None
    assert fault.fault_class == "client"
    assert "endpoint" in fault.sentence
    response = way.client.send("GET")
    with pytest.raises(Exception):  # noqa: B017 - whatever the client makes of a cut stream
        response.read()


def test_a_post_to_a_stream_that_has_ended_is_not_found(older: McpServer, open_way: Open) -> None:
    way = open_way(older.url)
    place = way.client.place.path.removesuffix("sse") + "messages/"
    for number in ("1", "", "x/../1"):
        assert way.client.send("POST", b"{}", path=place + number).status == 404
    stream = way.client.send("GET")
    told = next(events_in(stream))["data"]
    older.streams["/messages?session=0"].put(None)
    assert stream.read() == b""
    assert way.client.send("POST", b"{}", path=told).status == 404


def test_a_call_without_leave_is_refused_by_status(older: McpServer, open_way: Open) -> None:
    def first() -> None:
        raise RuntimeError

    way = open_way(older.url, first=first)
    stream = way.client.send("GET")
    place = next(events_in(stream))["data"]
    response = way.client.send("POST", way.client.request("tools/call", name="x"), path=place)
    assert response.status == 502
    assert "tools/call" not in older.methods()


def test_a_server_hears_that_the_cli_has_gone(older: McpServer, open_way: Open) -> None:
    def stream(exchange: Exchange) -> None:
        exchange.events()
        exchange.chunk(b"event: endpoint\ndata: /m\n\n")
        exchange.until_gone()

    older.ways["GET"] = stream
    way = open_way(older.url)
    connection = way.client.connect()
    response = way.client.send("GET", connection=connection)
    next(events_in(response))
    response.close()
    connection.close()
    assert older.left.wait(30)
    assert threading.active_count() < 50
