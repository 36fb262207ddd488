"""With rules, a program beside the agent can't have a server that is written in C make a call that nobody approved."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from .c_server import CServer
from .conftest import Way
from .servers import serving
from .test_gate import Spending, decided

pytestmark = pytest.mark.long

RULES = [{"tools": ["send"], "when": "always"}]
LOOK = '"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}'
SEND = '"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send"}'
# Each of these has `send` called by a server that gets it as it is.
REAL = (
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","name\\u0000":"send"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","name\\u0000x":"send"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call\\u0000","params":{"name":"send"}}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","method\\u0000":"tools/call","params":{"name":"send"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"},"params\\u0000":{"name":"send"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send\\u0000"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","name":"send"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","n\\u0061me":"send"}}',
    "{/**/" + SEND + "}",
    "{'id':1,'method':'tools/call','params':{'name':'send'}}",
    "{" + SEND + ',"x":NaN}',
    "{" + SEND + "}{}",
    "{" + SEND + "}\0",
    "{" + SEND + ",}",
)
ODD = ("{}\\u0000", "{}\\u0000x", "\\u0000{}", "__proto__", " {}", "{} ", "{}\\ud800", "\\ufeff{}")
HEADERS: tuple[dict[str, str], ...] = (
    {"Mcp_Name": "send", "Mcp_Method": "tools/call"},
    {"Mcp-Name": "send"},
    {"Mcp-Method": "tools/list"},
    {"X-HTTP-Method-Override": "PUT", "X-Tenant": "other", "Forwarded": "host=other"},
    {"Content-Type": "application/json; charset=utf-16"},
    {"Content-Encoding": "deflate"},
    {"Mcp-Param-To": "x"},
)


def odd_bodies() -> Iterator[str]:
    """Yield a call of `look` beside which each name stands again, written otherwise, with what a call of `send` has."""
    ours = {"name": '"send"', "method": '"tools/call"', "params": '{"name":"send"}'}
    for (name, value), odd in itertools.product(ours.items(), ODD):
        member = f'"{odd.format(name)}":{value}'
        if name == "name":
            yield "{" + LOOK.replace('"name":"look"', f'"name":"look",{member}') + "}"
            yield "{" + LOOK.replace('"name":"look"', f'{member},"name":"look"') + "}"
        else:
            yield "{" + LOOK + "," + member + "}"
            yield "{" + member + "," + LOOK + "}"
        yield '{"jsonrpc":"2.0","id":1,"result":{},' + member + "}"
    deep = '{"a":' * 490 + "1" + "}" * 490
    yield "{" + SEND.replace('"send"', f'"send","arguments":{deep}') + "}"
    yield "{" + SEND.replace('"id":1', '"id":"1"') + "}"
    yield "{" + SEND.replace('"id":1', '"id":[1]') + "}"
    yield "[{" + LOOK + "},{" + SEND + "}]"
    yield "[[{" + SEND + "}]]"


@pytest.fixture
def c_server() -> Iterator[CServer]:
    with serving(CServer()) as made:
        assert isinstance(made, CServer)
        yield made


def test_each_of_these_is_a_call_of_send_for_the_server(c_server: CServer) -> None:
    for body in REAL:
        assert [tool for tool, _ in c_server.calls_in(body.encode())] == ["send"], body


def test_no_call_is_made_without_an_approval_and_each_is_journaled_as_what_it_is(
    open_way: Callable[..., Way], c_server: CServer
) -> None:
    spending = Spending()
    way = open_way(c_server.url, gate=spending.gate(rules=RULES, decision=decided('{"a":1}')))
    assert way.gateway.probe() is None
    connection = way.client.connect()

    def attack(body: str, **headers: str) -> None:
        response = way.client.send("POST", body.encode(), headers=headers, connection=connection)
        response.read()
        assert response.status in {200, 202, 400}

    for body in (*REAL, *odd_bodies()):
        attack(body)
        attack(f"[{body}]")
    for headers in HEADERS:
        for body in (LOOK, SEND):
            attack("{" + body + "}", **headers)
    assert {tool for tool, _ in c_server.made} == {"look"}
    assert spending.spent == []
    journaled = [tool for tool, _, _ in way.outcomes()]
    assert journaled == [tool for tool, _ in c_server.made]
    assert "result" in way.client.call("send", a=1)
    assert [tool for tool, _ in c_server.made].count("send") == 1
    assert json.loads(c_server.made[-1][1]) == {"a": 1}
    assert len(spending.spent) == 1
