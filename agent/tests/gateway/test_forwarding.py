"""The gateway passes messages both ways, adds the headers, and journals the calls: streamable HTTP."""

from __future__ import annotations

import http.client
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable

import pytest

from .conftest import Way, answer_in, events_in
from .servers import TOKEN, Exchange, McpServer

Open = Callable[..., Way]
CALL = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "look"}}


@pytest.mark.parametrize("as_events", [False, True])
def test_a_call_is_forwarded_and_journaled(
    server: McpServer, open_way: Open, as_events: bool
) -> None:
    server.as_events = as_events
    way = open_way(server.url)
    assert way.gateway.probe() is None
    assert way.client.call("look")["result"]["content"] == [{"type": "text", "text": "done"}]
    assert way.client.call("set")["result"]["isError"] is False
    assert way.client.call("send", fail=True)["result"]["isError"] is True
    assert way.client.call("unheard of")["id"] == 4
    assert way.outcomes() == [
        ("look", "none", "ok"),
        ("set", "idempotent", "ok"),
        ("send", "possible", "error"),
        ("unheard of", "possible", "ok"),
    ]
    assert way.calls.counts() == {"total": 4, "effects": 2, "unknown": 0}


def test_the_triggers_headers_are_added_and_win(server: McpServer, open_way: Open) -> None:
    headers = {
        "Authorization": TOKEN,
        "X-Team": "blue",
        "Accept-Encoding": "gzip",
        "Connection": "close",
        "mcp-session-id": "forged",
    }
    way = open_way(server.url, headers=headers)
    theirs = {
        "X-Team": "red",
        "Cookie": "c=1",
        "Authorization": "Bearer own",
        "User-Agent": "cli",
        "Mcp-Session-Id": "session-1",
        "MCP-Protocol-Version": "2025-06-18",
        "Mcp-Method": "ping",
        "Keep-Alive": "5",
    }
    response = way.client.send("POST", way.client.request("ping"), theirs)
    response.read()
    lower = server.lower(-1)
    assert server.seen[-1][1] == "/mcp?key=planted-in-query"
    assert lower["authorization"] == TOKEN
    assert lower["x-team"] == "blue"
    assert lower["user-agent"] == "cli"
    assert lower["accept-encoding"] == "identity"
    assert lower["mcp-session-id"] == "session-1"
    assert lower["mcp-protocol-version"] == "2025-06-18"
    assert lower["mcp-method"] == "ping"
    assert "cookie" not in lower
    assert "keep-alive" not in lower


def test_only_harmless_headers_come_back(server: McpServer, open_way: Open) -> None:
    server.ways["ping"] = lambda exchange: exchange.result(
        {},
        Set_Cookie="a=b",
        X_Echo=TOKEN,
        WWW_Authenticate="Bearer",
        Mcp_Session_Id="session-1",
        Retry_After="7",
        Mcp_Protocol_Version="2025-06-18",
    )
    way = open_way(server.url)
    response = way.client.send("POST", way.client.request("ping"))
    assert {name.lower() for name in response.headers} == {
        "content-length",
        "content-type",
        "mcp-session-id",
        "retry-after",
        "mcp-protocol-version",
    }


SECRET = TOKEN.split()[1]


@pytest.mark.parametrize(
    "session", [SECRET, f"x-{SECRET}-x", b64encode(f"id:{TOKEN}".encode()).decode()]
)
def test_a_session_id_that_repeats_a_header_is_refused(
    server: McpServer, open_way: Open, session: str
) -> None:
    server.ways["ping"] = lambda exchange: exchange.result({}, Mcp_Session_Id=session)
    way = open_way(server.url)
    response = way.client.send("POST", way.client.request("ping"))
    assert session not in str(response.headers)
    assert "session id" in json.loads(response.read())["error"]["message"]


def test_a_session_id_that_repeats_the_password_of_the_url_is_refused(
    server: McpServer, open_way: Open
) -> None:
    server.ways["ping"] = lambda exchange: exchange.result({}, Mcp_Session_Id="planted-password")
    way = open_way(server.url.replace("http://", "http://me:planted-password@"), headers={})
    response = way.client.send("POST", way.client.request("ping"))
    assert "planted" not in str(response.headers)


def test_no_other_header_that_comes_back_repeats_a_secret(
    server: McpServer, open_way: Open
) -> None:
    told = {"Mcp_Protocol_Version": SECRET, "Retry_After": "123456789"}
    server.ways["ping"] = lambda exchange: exchange.result({}, **told)
    way = open_way(server.url, headers={"Authorization": TOKEN, "X-Pin": "Pin 123456789"})
    response = way.client.send("POST", way.client.request("ping"))
    assert response.status == 200
    assert {name.lower() for name in response.headers} == {"content-length", "content-type"}


def test_a_retry_after_in_other_digits_is_left_out(server: McpServer, open_way: Open) -> None:
    told = "\u0663".encode().decode("latin-1")
    server.ways["tools/call"] = lambda exchange: exchange.result({}, Retry_After=told)
    way = open_way(server.url)
    response = way.client.send("POST", {**CALL, "id": 1})
    assert (response.status, response.getheader("Retry-After")) == (200, None)
    assert json.loads(response.read())["result"] == {}
    assert way.outcomes() == [("look", "possible", "ok")]


@pytest.mark.parametrize("status", [204, 205])
def test_a_status_without_content_becomes_200(
    server: McpServer, open_way: Open, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send_response(status)
        exchange.send_header("Content-Type", "text/event-stream")
        # Without this the gateway may send the next request on the connection while the server closes it.
        exchange.send_header("Connection", "close")
        exchange.end_headers()

    server.ways["*"] = answer
    way = open_way(server.url)
    response = way.client.send("POST", {**CALL, "id": 1})
    assert response.status == 200
    assert b"ended its answer" in response.read()
    response = way.client.send("GET")
    assert (response.status, response.read()) == (200, b"")
    response = way.client.send("DELETE")
    assert (response.status, response.read()) == (200, b"")
    assert not caplog.records


@pytest.mark.parametrize("as_events", [False, True])
def test_an_answer_to_another_kind_of_id_is_not_passed_on(
    server: McpServer, open_way: Open, as_events: bool
) -> None:
    """Claude would take the answer to "1" for the one to 1, while the journal would have none."""

    def answer(exchange: Exchange) -> None:
        told = {"jsonrpc": "2.0", "id": str(exchange.message["id"]), "result": {"a": "planted"}}
        if as_events:
            exchange.events()
            exchange.event(told)
            exchange.end()
        else:
            exchange.json(told, 200)

    server.ways["tools/call"] = answer
    way = open_way(server.url)
    response = way.client.send("POST", {**CALL, "id": 1})
    text = response.read().decode()
    assert "planted" not in text
    assert "The MCP server" in text
    assert way.outcomes() == [("look", "possible", "unknown" if as_events else "error")]
    # The same on a stream that the client opens.
    stream = way.client.send("GET")
    server.streams["GET"].put(b'data: {"jsonrpc":"2.0","id":"1","result":{"a":"planted"}}\n\n')
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        stream.read()


# The other encodings have line ends and NUL in their bytes, so no event holds them.
@pytest.mark.parametrize(
    ("charset", "as_events"),
    [("utf-16", False), ("utf-32", False), ("latin-1", False), ("latin-1", True)],
)
def test_an_answer_in_another_encoding_than_utf_8_is_none(
    server: McpServer, open_way: Open, charset: str, as_events: bool
) -> None:
    def answer(exchange: Exchange) -> None:
        text = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "result": {"a": "planted\u00e9"}}, ensure_ascii=False
        )
        if as_events:
            exchange.events()
            exchange.chunk(b"data: " + text.encode(charset) + b"\n\n")
            exchange.end()
        else:
            exchange.whole(200, text.encode(charset), "application/json")

    server.ways["tools/call"] = answer
    way = open_way(server.url)
    text = way.client.send("POST", {**CALL, "id": 1}).read()
    assert b"The MCP server" in text
    assert b"planted" not in text
    assert way.outcomes() == [("look", "possible", "unknown" if as_events else "error")]


@pytest.mark.parametrize(
    "body", [b"5", b"{}", b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m"}}']
)
def test_a_json_answer_that_answers_nothing_is_an_error(
    server: McpServer, open_way: Open, body: bytes
) -> None:
    """Claude would otherwise wait for the rest of the run."""
    server.ways["tools/call"] = lambda exchange: exchange.whole(200, body, "application/json")
    way = open_way(server.url)
    told = json.loads(way.client.send("POST", {**CALL, "id": 1}).read())
    assert told["id"] == 1
    assert "none to this request" in told["error"]["message"]
    assert way.outcomes() == [("look", "possible", "error")]


def test_a_byte_order_mark_is_no_other_encoding(server: McpServer, open_way: Open) -> None:
    body = b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"result":{}}'
    server.ways["tools/call"] = lambda exchange: exchange.whole(200, body, "application/json")
    way = open_way(server.url)
    assert way.client.send("POST", {**CALL, "id": 1}).read() == body
    assert way.outcomes() == [("look", "possible", "ok")]


def test_events_are_passed_on_as_they_come(server: McpServer, open_way: Open) -> None:
    told = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.events()
        exchange.chunk(b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n')
        exchange.chunk(b"\n: half")
        assert told.wait(30)
        exchange.chunk(b"\n\n")
        exchange.event({"jsonrpc": "2.0", "id": exchange.message["id"], "result": {}})
        exchange.end()

    server.ways["tools/call"] = answer
    way = open_way(server.url)
    asked = way.client.request("tools/call", name="look")
    response = way.client.send("POST", asked)
    assert "progress" in next(events_in(response))["data"]
    assert way.calls.counts()["unknown"] == 1
    told.set()
    assert answer_in(response, asked["id"])["result"] == {}
    assert way.calls.counts()["unknown"] == 0


def test_the_answer_may_come_on_another_stream(server: McpServer, open_way: Open) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.events()
        exchange.event("", before="id: 41\n")
        exchange.end()

    server.ways["tools/call"] = answer
    way = open_way(server.url)
    session = {"Mcp-Session-Id": "session-1"}
    asked = way.client.request("tools/call", name="look")
    response = way.client.send("POST", asked, session)
    assert [event["id"] for event in events_in(response)] == ["41"]
    assert way.outcomes() == [("look", "possible", "unknown")]
    wrong = way.client.send("GET", headers={"Mcp-Session-Id": "session-2"})
    server.streams["GET"].put(f'data: {{"id":{asked["id"]},"result":{{}}}}\n\n'.encode())
    assert next(events_in(wrong))["data"]
    assert way.outcomes() == [("look", "possible", "unknown")]
    resumed = way.client.send("GET", headers={**session, "Last-Event-ID": "41"})
    assert {"last-event-id": "41"}.items() <= server.lower(-1).items()
    server.streams["GET"].put(f'data: {{"id":{asked["id"]},"result":{{}}}}\n\n'.encode())
    assert next(events_in(resumed))["data"]
    assert way.outcomes() == [("look", "possible", "ok")]


def test_every_call_of_a_batch_is_journaled(server: McpServer, open_way: Open) -> None:
    server.ways["*"] = lambda exchange: exchange.json(
        [{"jsonrpc": "2.0", "id": "a", "result": {}}, {"jsonrpc": "2.0", "id": 1, "error": {}}]
    )
    way = open_way(server.url)
    batch = [{**CALL, "id": "a"}, {**CALL, "id": 1}, {**CALL, "id": "1"}, CALL]
    assert len(json.loads(way.client.send("POST", batch).read())) == 2
    assert [outcome for _, _, outcome in way.outcomes()] == ["ok", "error", "unknown", "unknown"]


def test_a_call_is_on_disk_before_it_is_sent(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    counts = []
    behave = server.behave

    def look(exchange: Exchange) -> None:
        counts.append(way.calls.read(way.calls._path).counts())
        behave(exchange)

    server.ways["tools/call"] = look
    way.client.call("look")
    assert counts == [{"total": 1, "effects": 1, "unknown": 1}]


def test_the_first_call_with_an_effect_waits_for_leave(server: McpServer, open_way: Open) -> None:
    leave, asked = threading.Event(), []

    def first() -> None:
        asked.append(way.calls.counts())
        assert leave.wait(30)

    way = open_way(server.url, first=first)
    assert way.gateway.probe() is None
    way.client.call("look")
    way.client.call("set")
    assert asked == []
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(way.client.call("send"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while way.calls.counts()["total"] < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    way.client.call("look")
    assert server.methods().count("tools/call") == 3
    leave.set()
    for thread in threads:
        thread.join()
    way.client.call("send")
    assert len(answers) == 3
    assert len(asked) == 1
    assert 1 <= asked[0]["effects"] <= 3
    assert way.calls.counts() == {"total": 7, "effects": 4, "unknown": 0}


def test_a_call_that_got_no_leave_is_not_sent(server: McpServer, open_way: Open) -> None:
    def first() -> None:
        raise RuntimeError("the run is lost")

    way = open_way(server.url, first=first)
    answer = way.client.call("send")
    assert answer["error"]["message"] == "The run is being stopped, so this call was not sent."
    assert way.client.call("send")["error"]["code"] == -32000
    assert server.seen == []
    assert way.outcomes() == [("send", "possible", "error")] * 2


def test_annotations_are_learnt_from_later_lists_too(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    way.client.call("look")
    way.client.send("POST", way.client.request("tools/list")).read()
    way.client.call("look")
    server.tools = [[{"name": "look"}]]
    server.as_events = True
    asked = way.client.request("tools/list")
    answer_in(way.client.send("POST", asked), asked["id"])
    way.client.call("look")
    assert [effect for _, effect, _ in way.outcomes()] == ["possible", "none", "possible"]


def test_one_connection_serves_many_requests(server: McpServer, open_way: Open) -> None:
    way = open_way(server.url)
    connection = way.client.connect()
    for _ in range(20):
        response = way.client.send("POST", way.client.request("ping"), connection=connection)
        assert response.status == 200
        response.read()
    notified = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    response = way.client.send("POST", notified, connection=connection)
    assert (response.status, response.read()) == (202, b"")
    response = way.client.send("DELETE", headers={"Mcp-Session-Id": "s"}, connection=connection)
    assert (response.status, response.read()) == (200, b"")
    assert server.seen[-1][0] == "DELETE"


def test_a_farewell_reaches_the_server_even_if_nobody_waits(
    server: McpServer, open_way: Open
) -> None:
    way = open_way(server.url)
    connection = http.client.HTTPConnection("127.0.0.1", way.client.place.port)
    connection.request("DELETE", way.client.place.path)
    connection.close()
    deadline = time.monotonic() + 30
    while not server.seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.seen[0][0] == "DELETE"


@pytest.mark.parametrize(
    ("status", "passed"),
    [
        (400, 400),
        (401, 403),
        (403, 403),
        (404, 404),
        (302, 502),
        (429, 429),
        (500, 500),
        (503, 503),
    ],
)
def test_a_status_reaches_the_cli_with_a_sentence(
    server: McpServer, open_way: Open, status: int, passed: int
) -> None:
    server.ways["*"] = lambda exchange: exchange.whole(
        status, b"<html>" + TOKEN.encode(), "text/html", Location="http://127.0.0.1:1/"
    )
    way = open_way(server.url)
    response = way.client.send("POST", {**CALL, "id": 9})
    assert response.status == passed
    assert response.getheader("Location") is None
    answer = json.loads(response.read())
    assert answer["id"] == 9
    assert str(status) in answer["error"]["message"]
    assert way.outcomes() == [("look", "possible", "error")]
    assert way.client.send("GET").status == passed
    assert way.client.send("DELETE").status == passed


def test_a_json_rpc_error_keeps_its_status_and_its_words(server: McpServer, open_way: Open) -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "none of ours"}}
    server.ways["*"] = lambda exchange: exchange.json(error, 404)
    way = open_way(server.url)
    response = way.client.send("POST", way.client.request("server/discover"))
    assert (response.status, json.loads(response.read())) == (404, error)
