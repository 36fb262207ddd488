"""The API renews a server's headers: before they expire, and when the server refuses them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipedai_worker.api import Refused, Unavailable
from pipedai_worker.gateway import Credentials, limits
from pipedai_worker.running.outcome import INFRA, Fault

from .conftest import Way, until
from .servers import TOKEN, Exchange, McpServer

Open = Callable[..., Way]
NEWER = {"Authorization": "Bearer planted-newer"}
OLD = {"Authorization": "Bearer planted-old"}


class Api:
    """Gives the headers that the server wants, unless `answer` is another answer, and counts how often it is asked, and
    how often because of a refusal.
    """

    def __init__(self) -> None:
        self.asked = self.refused = 0
        self.answer: Credentials | Exception = Credentials({"Authorization": TOKEN})

    def ask(self, refused: bool) -> Credentials:
        self.asked += 1
        self.refused += refused
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def api() -> Api:
    return Api()


def test_a_refused_call_is_sent_once_more_with_new_headers_and_is_one_call(
    server: McpServer, open_way: Open, api: Api
) -> None:
    way = open_way(server.url, headers=OLD, ask=api.ask)
    assert way.client.call("send")["result"]["isError"] is False
    assert [seen[2]["Authorization"] for seen in server.seen] == [OLD["Authorization"], TOKEN]
    assert way.outcomes() == [("send", "possible", "ok")]
    assert way.client.call("look")["result"]["isError"] is False
    assert (len(server.seen), api.asked, api.refused) == (3, 1, 1)


def test_calls_that_are_refused_together_ask_once(
    server: McpServer, open_way: Open, api: Api
) -> None:
    came = threading.Barrier(3)
    old = server.behave

    def together(exchange: Exchange) -> None:
        if exchange.headers["Authorization"] == OLD["Authorization"]:
            came.wait(30)
        old(exchange)

    server.ways["*"] = together
    way = open_way(server.url, headers=OLD, ask=api.ask)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(way.client.call, ["look", "set", "send"]))
    assert [answer["result"]["isError"] for answer in answers] == [False] * 3
    assert (len(server.seen), api.asked) == (6, 1)


@pytest.mark.parametrize(
    "answer",
    [
        Credentials(OLD),
        Credentials({"Authorization": "Bearer planted\n"}),
        Refused("The connection is not ready.", 409, "connection_not_ready"),
        Unavailable("The API is away."),
        ValueError("planted"),
    ],
)
def test_without_other_headers_the_refusal_is_passed_on_and_not_asked_for_again_at_once(
    server: McpServer, open_way: Open, api: Api, answer: Credentials | Exception
) -> None:
    api.answer = answer
    way = open_way(server.url, headers=OLD, ask=api.ask)
    for number in (1, 2):
        response = way.client.send("POST", way.client.request("tools/call", name="send"))
        assert (response.status, len(server.seen)) == (403, number)
        assert b"planted" not in response.read()
    assert api.asked == 1
    assert way.outcomes() == [("send", "possible", "error")] * 2


def test_headers_are_asked_for_before_they_expire_and_again_until_they_come(
    server: McpServer, open_way: Open, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RENEWAL_PAUSE", 0.01)
    api.answer = Unavailable("The API is away.")
    way = open_way(server.url, headers=OLD, ask=api.ask, expire_in=0.1)
    until(lambda: api.asked >= 2)
    api.answer = Credentials({"Authorization": TOKEN})
    until(lambda: api.asked >= 3)
    # The answer may still be on its way into the gateway, in which case this call asks for nothing either.
    assert way.client.call("look")["result"]["isError"] is False
    asked = api.asked
    assert api.refused == 0
    # What does not expire is not asked for again.
    assert way.client.call("look")["result"]["isError"] is False
    assert api.asked == asked


def test_a_401_that_remains_at_the_probe_is_infra_where_headers_expire(
    server: McpServer, open_way: Open, api: Api
) -> None:
    api.answer = Refused("The connection is not ready.", 409, "connection_not_ready")
    fault = open_way(server.url, headers=OLD, ask=api.ask, expire_in=3600).gateway.probe()
    assert isinstance(fault, Fault)
    assert fault.fault_class == INFRA
    assert "401" in fault.sentence
    assert "connection" in fault.sentence
    assert (len(server.seen), api.asked) == (1, 1)
