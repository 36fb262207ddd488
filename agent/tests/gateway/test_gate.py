"""A gated call reaches the server only with an approval for exactly this call, however it is sent."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pipedai_worker.disk.sessions import Session, Workplace
from pipedai_worker.executors import claude
from pipedai_worker.executors import hook as hook_program
from pipedai_worker.executors.base import JobSession
from pipedai_worker.gateway import Credentials, Gate, gate, limits
from pipedai_worker.redact import Redactor
from pipedai_worker.running.assigned import Approvals, AssignedRun
from pipedai_worker.running.outcome import Fault
from pipedai_worker.running.run import Ending, gate_of
from pipedai_worker.running.stopping import StopRequest

from .conftest import Way
from .servers import TOKEN, Exchange, McpServer, serving

SCHEMA_HASH = hashlib.sha256(b'{"type":"object"}').hexdigest()
EFFECTS = [{"tools": "*", "when": "possible_effect"}]
Opening = Callable[..., Way]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def decided(arguments: str, decision: str = "approve", **fields: Any) -> dict[str, Any]:
    """Return a decision on a call of `send`, whose arguments have this canonical form."""
    call = {"tool": "send", "argumentsHash": sha(arguments), "toolSchemaHash": SCHEMA_HASH}
    return {"approvalId": str(uuid4()), "decision": decision, "reason": None, **call, **fields}


class Spending:
    """Takes the place of the API and of the disk."""

    def __init__(self) -> None:
        self.spent: list[str] = []
        self.fails = self.full = False

    def gate(self, rules: Any = EFFECTS, decision: Any = None, **rest: Any) -> Gate:
        approvals = Approvals.parse({"rules": rules, "decision": decision})
        assert approvals is not None
        return Gate(
            approvals,
            make_room=lambda *_: not self.full,
            spend=self._spend,
            **{"redact": lambda value: value, **rest},
        )

    def _spend(self, approval_id: str) -> None:
        if self.fails:
            raise ConnectionError
        self.spent.append(approval_id)


@pytest.fixture
def spending() -> Spending:
    return Spending()


@pytest.fixture
def gated(open_way: Opening, server: McpServer, spending: Spending) -> Opening:
    def gated(*, at: McpServer | None = None, **given: Any) -> Way:
        at = at or server
        way = open_way(at.url, gate=spending.gate(**given))
        assert way.gateway.probe() is None
        return way

    return gated


def sent_to(server: McpServer) -> list[Any]:
    """Return the parameters of the tool calls that reached the server."""
    found = [message for _, _, _, message in server.seen]
    flat = [each for one in found for each in (one if isinstance(one, list) else [one])]
    return [each["params"] for each in flat if each and each.get("method") == "tools/call"]


def test_an_approved_call_is_spent_and_sent_once_in_its_approved_form(
    gated: Opening, server: McpServer, spending: Spending
) -> None:
    decision = decided('{"a":1,"z":"\u00e9"}')
    way = gated(decision=decision)
    asked = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"task":{"x":1},'
    asked += b'"_meta":{"progressToken":3,"x.example/all":1},"name":"send","arguments":{"z":"\\u00e9","a":1.0}}}'
    assert "result" in json.loads(way.client.send("POST", asked).read())
    # Parameters that nobody has seen are left out.
    form = {"name": "send", "arguments": {"a": 1, "z": "\u00e9"}, "_meta": {"progressToken": 3}}
    assert sent_to(server) == [form]
    assert spending.spent == [decision["approvalId"]]
    assert way.outcomes() == [("send", "possible", "ok")]
    assert gate.UNAPPROVED in str(way.client.call("send", a=1, z="\u00e9"))
    assert len(sent_to(server)) == 1


def test_an_approved_call_that_the_server_refuses_for_its_headers_is_spent_and_made_once(
    open_way: Opening, server: McpServer, spending: Spending
) -> None:
    """The request is sent once more with the headers that the API has by then."""
    decision, current = decided('{"a":1}'), Credentials({"Authorization": TOKEN})
    refused = []

    def expire(exchange: Exchange) -> None:
        refused.append(exchange.headers["X-Old"])
        del server.ways["tools/call"]
        exchange.json({"error": "expired"}, 401)

    server.ways["tools/call"] = expire
    old = {"Authorization": TOKEN, "X-Old": "planted-old"}
    way = open_way(
        server.url, headers=old, ask=lambda _: current, gate=spending.gate(decision=decision)
    )
    assert way.gateway.probe() is None
    assert "result" in way.client.call("send", a=1)
    assert (refused, spending.spent) == (["planted-old"], [decision["approvalId"]])
    assert way.outcomes() == [("send", "possible", "ok")]
    assert gate.UNAPPROVED in str(way.client.call("send", a=1))


ANOTHER = {"argumentsHash": sha('{"a":2}')}


@pytest.mark.parametrize(
    "decision",
    [
        None,
        decided("{}", **ANOTHER),
        decided("{}", tool="sent"),
        decided("{}", toolSchemaHash=sha('{"type":"string"}')),
    ],
    ids=["none", "arguments", "tool", "schema"],
)
def test_a_call_that_nobody_has_approved_is_not_sent(
    gated: Opening, server: McpServer, spending: Spending, decision: Any
) -> None:
    way = gated(decision=decision)
    assert gate.UNAPPROVED in str(way.client.call("send"))
    assert "result" in way.client.call("look")
    assert "result" in way.client.call("set")
    assert [params["name"] for params in sent_to(server)] == ["look", "set"]
    assert spending.spent == []
    assert way.outcomes() == [("look", "none", "ok"), ("set", "idempotent", "ok")]


def _call(**message: Any) -> dict[str, Any]:
    params = {"name": "send", "arguments": {}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params, **message}


LOOK = _call(id=2, params={"name": "look", "arguments": {}})
DOUBLE = b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"send"}}'
IN_OTHER_CAPITALS = b'{"jsonrpc":"2.0","id":1,"Method":"tools/call","params":{"name":"send"}}'
# By the UTF-7 that the header claims, this is the method tools/call.
UTF_7 = json.dumps(_call(method="+AHQ-ools/call"))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ([LOOK, _call()], {}),
        ([_call(), _call(id=3)], {}),
        (_call(id=None), {}),
        (_call(method="Tools/Call "), {}),
        (_call(method=["tools/call"]), {}),
        (_call(params={"name": " send", "arguments": {}}), {}),
        (_call(params={"name": "send", "arguments": []}), {}),
        (_call(params=["send"]), {}),
        (DOUBLE, {}),
        (IN_OTHER_CAPITALS, {}),
        (json.dumps(_call()).encode("utf-16"), {}),
        (UTF_7.encode(), {"Content-Type": "application/json; charset=utf-7"}),
        (_call(id=True, params=LOOK["params"]), {}),
        (_call(extra=1, params=LOOK["params"]), {}),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"n":1e999}}', {}),
        (json.dumps(LOOK).encode(), {"Mcp-Name": "send"}),
        (json.dumps(LOOK).encode(), {"Content-Type": "text/plain"}),
    ],
)
def test_no_other_way_of_sending_goes_round_the_gate(
    gated: Opening, server: McpServer, spending: Spending, body: Any, headers: dict[str, str]
) -> None:
    way = gated(decision=decided("{}"))
    text = way.client.send("POST", body, headers=headers).read().decode()
    assert "error" in text
    assert (sent_to(server), spending.spent) == ([], [])


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","name\\u0000":"send"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call\\u0000","params":{"name":"send"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","method\\u0000":"tools/call","params":{"name":"send"}}',
        b'{"id":1,"method":"ping","__proto__":{"method":"tools/call","params":{"name":"send"}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","__proto__":{"name":"send"}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","arguments":{"a":{"b\\u0000":1}}}}',
    ],
)
@pytest.mark.parametrize("with_rules", [True, False])
def test_a_name_or_method_that_another_parser_reads_otherwise_is_not_sent(
    gated: Opening, open_way: Opening, server: McpServer, body: bytes, with_rules: bool
) -> None:
    way = gated() if with_rules else open_way(server.url)
    before = len(server.seen)
    assert way.client.send("POST", body).status == 400
    assert way.client.send("POST", b"[" + body + b"]").status == 400
    assert len(server.seen) == before


def test_what_needs_no_approval_is_made_anew_from_what_mcp_knows(
    gated: Opening, server: McpServer
) -> None:
    bodies: list[bytes] = []

    def take(exchange: Exchange) -> None:
        bodies.append(exchange.body)
        server.behave(exchange)

    server.ways["tools/call"] = take
    way = gated()
    posted = b' {"params": {"Other": {}, "name": "lo\\u006fk", "arguments": {"a": 1.50, "\xc3\xa9": "\\u0000"}},'
    posted += b' "result": 1, "method": "tools\\/call", "id": 7} '
    assert json.loads(way.client.send("POST", posted).read())["id"] == 7
    params = b'"params":{"name":"look","arguments":{"a":1.5,"\\u00e9":"\\u0000"}}'
    assert bodies == [b'{"jsonrpc":"2.0","id":7,"method":"tools/call",' + params + b"}"]


@pytest.mark.parametrize("tool", ["look", "send"])
def test_headers_that_nobody_has_seen_are_left_out(
    gated: Opening, server: McpServer, tool: str
) -> None:
    way = gated(decision=decided("{}"))
    unseen = (
        "X-Tenant",
        "X-HTTP-Method-Override",
        "Forwarded",
        "Mcp_Name",
        "Mcp-Na_me",
        "Tracestate",
    )
    seen = {"Last-Event-ID": "1", "Mcp-Session-Id": "s", "Traceparent": "t", "User-Agent": "cli"}
    headers = {**dict.fromkeys((*unseen, "Content-Encoding"), "send"), **seen}
    post = _call(params={"name": tool, "arguments": {}})
    assert b"result" in way.client.send("POST", post, headers=headers).read()
    lower = server.lower(-1)
    assert lower.keys() - {name.lower() for name in seen} == {
        *("host", "authorization", "accept", "accept-encoding", "content-type", "content-length")
    }
    assert {name.lower(): value for name, value in seen.items()}.items() <= lower.items()
    way.client.send("GET", headers=headers)
    assert not {name.lower() for name in unseen} & server.lower(-1).keys()


def test_a_message_with_too_many_levels_is_denied_with_a_sentence(
    gated: Opening, server: McpServer, caplog: pytest.LogCaptureFixture
) -> None:
    way = gated()
    deep = json.loads('{"a":' * 490 + "1" + "}" * 490)
    assert gate.TOO_DEEP in str(way.client.call("look", **deep))
    assert gate.TOO_DEEP in str(way.client.call("send", **deep))
    deep = json.loads('{"a":' * 80 + "1" + "}" * 80)
    assert gate.NOT_CANONICAL in str(way.client.call("send", **deep))
    assert "result" in way.client.call("look", **deep)
    assert way.gate is not None
    assert list(way.gate.denied(waits=False).values()) == ["look", "send", "send"]
    assert [params["name"] for params in sent_to(server)] == ["look"]
    assert not caplog.records


def test_what_the_gate_fails_to_judge_is_refused(
    gated: Opening, server: McpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    way = gated(decision=decided("{}"))
    monkeypatch.setattr(gate, "canonical", lambda *_: 1 / 0)
    assert gate.ODD in str(way.client.call("send"))
    assert hook(way, tmp_path, "send", {}, as_program=True)["why"] == gate.ODD
    assert way.gate is not None
    assert list(way.gate.denied(waits=False).values()) == ["send", "send"]
    assert sent_to(server) == []


@pytest.mark.parametrize("levels", [1_500, 100_000])
def test_a_schema_with_too_many_levels_makes_no_tool_harmless(
    open_way: Opening, server: McpServer, spending: Spending, levels: int
) -> None:
    """Newer versions of Python read such JSON."""
    schema: Any = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    way = open_way(server.url, gate=spending.gate(decision=decided("{}")))
    assert way.gate is not None
    way.gate.learn("send", {"inputSchema": schema}, "possible")
    assert gate.NOT_CANONICAL in str(way.client.call("send"))
    # The server then says that the tool only reads.
    way.gate.learn("send", {"inputSchema": {}}, "none")
    assert gate.UNAPPROVED in str(way.client.call("send"))
    assert sent_to(server) == []


def test_the_effect_of_a_tool_is_noted_though_its_schema_can_not_be(
    open_way: Opening, server: McpServer, spending: Spending, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = open_way(server.url, gate=spending.gate())
    assert way.gate is not None
    with monkeypatch.context() as broken:
        broken.setattr(gate, "canonical", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            way.gate.learn("send", {"inputSchema": {}}, "possible")
    assert gate.NOT_CANONICAL in str(way.client.call("send"))
    assert sent_to(server) == []


def test_a_tool_that_is_named_after_a_secret_is_denied_and_kept_nowhere(
    open_way: Opening, server: McpServer, spending: Spending, tmp_path: Path
) -> None:
    secret = TOKEN.split()[1]
    kept: list[set[str]] = []
    redactor = Redactor([TOKEN])
    spending_gate = spending.gate(redact=redactor.redact_json)

    def make_room(tool: str, names: set[str]) -> bool:
        kept.append({tool, *names})
        return True

    spending_gate._make_room = make_room
    way = open_way(server.url, gate=spending_gate, redactor=redactor)
    server.tools = [
        [{"name": name, "inputSchema": {"type": "object"}} for name in (secret, "send")]
    ]
    assert way.gateway.probe() is None
    assert hook(way, tmp_path, secret, {})["why"] == gate.NOT_CANONICAL
    assert gate.NOT_CANONICAL in str(way.client.call(secret))
    assert hook(way, tmp_path, "send", {}, tool_use_id="toolu_2")["decision"] == "defer"
    assert kept == [{"send", "[redacted]"}]
    assert secret not in str(spending_gate.denied(waits=True))
    assert sent_to(server) == []
    # The server says later that the tool only reads, so it is not gated, and written down without the secret.
    free = open_way(server.url, redactor=redactor)
    free.client.call(secret)
    free.client.call(f"{secret[:5]}\x01{secret[5:]}")
    free.client.call("x" * 190 + secret)
    assert secret not in free.calls._path.read_text()
    assert {item["tool"][:11] for item in free.calls.listed()} == {"[redacted]", "x" * 11}
    assert secret[:5] not in free.calls._path.read_text()


def test_a_call_whose_approval_can_not_be_spent_is_not_sent(
    gated: Opening, server: McpServer, spending: Spending
) -> None:
    spending.fails = True
    way = gated(decision=decided("{}"))
    assert gate.UNSPENT in str(way.client.call("send"))
    assert sent_to(server) == []
    assert way.outcomes() == [("send", "possible", "error")]


def test_a_rejected_call_is_refused_with_the_reason(gated: Opening, server: McpServer) -> None:
    way = gated(decision=decided("{}", "reject", reason="Not today."))
    for _ in range(2):
        assert f"{gate.REJECTED} The reason: Not today." in str(way.client.call("send"))
    assert sent_to(server) == []


@pytest.mark.parametrize("rules", [[], [{"tools": ["look"], "when": "always"}]])
@pytest.mark.parametrize("tool", ["send", "set"])
def test_what_was_decided_counts_before_what_the_rules_have_become(
    gated: Opening, server: McpServer, spending: Spending, tmp_path: Path, rules: Any, tool: str
) -> None:
    way = gated(rules=rules, decision=decided('{"a":1}', "reject", tool=tool))
    # The hook lets claude make the call, so that the model reads the gateway's refusal.
    assert hook(way, tmp_path, tool, {"a": 1})["decision"] is None
    assert gate.REJECTED in str(way.client.call(tool, a=1))
    # It is not made with other arguments either, unless somebody is asked about these.
    assert gate.UNAPPROVED in str(way.client.call(tool, a=2))
    assert hook(way, tmp_path, tool, {"a": 2})["decision"] == "defer"
    assert sent_to(server) == []
    way = gated(rules=rules, decision=decided('{"a":1}', tool=tool))
    assert "result" in way.client.call(tool, a=1)
    assert (len(sent_to(server)), len(spending.spent)) == (1, 1)


@pytest.mark.parametrize("rules", [None, [{"tools": ["look"], "when": "always"}]])
def test_a_call_about_which_an_earlier_run_has_asked_stays_gated_in_its_session(
    open_way: Opening, server: McpServer, rules: Any
) -> None:
    """A retry that resumes has no decision, and its trigger may have no such rule any more."""
    approvals = None if rules is None else {"rules": rules}
    given = {"id": str(uuid4()), "prompt": "p", "mcpUrl": server.url, "approvals": approvals}
    run = AssignedRun.parse(given)
    assert run is not None
    nothing: Any = None

    def opened(**session: Any) -> Way:
        known = Session("s", run.id, "", **session)
        place = Workplace(nothing, JobSession("s", resumed=True), known)
        found = gate_of(run, place, nothing, Redactor([]), Ending(StopRequest()))
        way = open_way(server.url, gate=found)
        assert way.gateway.probe() is None
        return way

    way = opened(deferred=True, asked_tool="send")
    assert gate.UNAPPROVED in str(way.client.call("send"))
    assert "result" in way.client.call("set")
    # Once the approval has been used, the session ends with no such call.
    assert "result" in opened(deferred=False, asked_tool="send").client.call("send")


def test_the_worst_annotation_of_a_run_counts(
    open_way: Opening, server: McpServer, spending: Spending
) -> None:
    """Also of an earlier spell, and also if the server calls the tool harmless later."""
    rules = [{"tools": ["set"], "when": "possible_effect"}, {"tools": ["look"], "when": "always"}]
    way = open_way(server.url, gate=spending.gate(rules=rules, with_effect=["set"]))
    assert way.gateway.probe() is None
    assert "error" in way.client.call("set")
    assert "error" in way.client.call("look")
    # No rule names this tool.
    assert "result" in way.client.call("send")


# --- The hook -------------------------------------------------------------------------------------


def hook(
    way: Way, tmp_path: Path, tool: str, arguments: Any, *, as_program: bool = False, **fields: Any
) -> dict[str, Any]:
    """Run the hook, as claude does or in this process, and return what it tells claude."""
    config = tmp_path / "mcp.json"
    config.write_bytes(claude.mcp_configuration(way.gateway.url, 60))
    asked = {
        "tool_name": f"mcp__trigger__{tool}",
        "tool_use_id": "toolu_1",
        "tool_input": arguments,
    }
    argv, text = [str(claude.HOOK), str(config), "60"], json.dumps({**asked, **fields})
    if as_program:
        command = [sys.executable, "-I", "-S", *argv]
        said = subprocess.check_output(command, input=text.encode())
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
            written = io.BytesIO()
            patch.setattr(sys, "stdout", io.TextIOWrapper(written))
            hook_program.main()
            said = written.getvalue()
    told = json.loads(said).get("hookSpecificOutput", {})
    return {"decision": told.get("permissionDecision"), "why": told.get("permissionDecisionReason")}


def test_the_hook_defers_the_first_gated_call_and_denies_the_others(
    gated: Opening, server: McpServer, spending: Spending, tmp_path: Path
) -> None:
    way = gated()
    found = way.gate
    assert found is not None
    assert hook(way, tmp_path, "look", {}, as_program=True)["decision"] is None
    assert hook(way, tmp_path, "send", {}, agent_id="a")["why"] == gate.SUB_AGENT
    spending.full = True
    assert hook(way, tmp_path, "send", {})["why"] == gate.NO_ROOM
    spending.full = False
    assert hook(way, tmp_path, "send", {"a": "x" * gate.LARGEST_ARGUMENTS})["why"] == gate.TOO_LARGE
    deep = json.loads("[" * 62 + "]" * 62)
    for odd in ({"a": 2**60}, {"a": "\ud800"}, {"a": "\0"}, {"a": 1e400}, {"a": deep}):
        assert hook(way, tmp_path, "send", odd)["why"] == gate.NOT_CANONICAL
    assert hook(way, tmp_path, "sent", {})["why"] == gate.UNLISTED
    assert hook(way, tmp_path, "send", {"b": 1.0, "a": "\u00e9"})["decision"] == "defer"
    assert hook(way, tmp_path, "send", {"b": 1}, tool_use_id="toolu_2")["why"] == gate.ALONE
    assert found.parked("toolu_2") is None
    assert found.parked("toolu_1") == {
        "tool": "send",
        "arguments": {"a": "\u00e9", "b": 1},
        "argumentsHash": sha('{"a":"\u00e9","b":1}'),
        "toolSchemaHash": SCHEMA_HASH,
    }
    assert sorted(found.denied(waits=True).values()) == ["send", "sent"]
    assert sent_to(server) == []
    # If claude makes the call all the same, it is refused, and another one may be asked for.
    assert "error" in way.client.call("send", a="\u00e9", b=1)
    assert hook(way, tmp_path, "send", {"b": 1}, tool_use_id="toolu_3")["decision"] == "defer"


@pytest.mark.parametrize(
    "arguments", [{f"hos_{'a' * 40}": 1, f"hos_{'b' * 40}": 2}, {"a": 31415926}]
)
def test_no_secret_hides_another_part_of_the_arguments(
    gated: Opening, tmp_path: Path, arguments: Any
) -> None:
    way = gated(redact=Redactor(["31415926"]).redact_json)
    assert hook(way, tmp_path, "send", arguments)["why"] == gate.NOT_CANONICAL


def test_without_rules_there_is_no_hook(open_way: Opening, server: McpServer) -> None:
    way = open_way(server.url)
    path = way.client.place.path.replace("/mcp", "/hook")
    response: http.client.HTTPResponse = way.client.send("POST", b"{}", path=path)
    assert response.status == 404
    assert "hooks" not in " ".join(claude.limiting_options(None, Path("mcp.json")))


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"Mcp-Param-To": "a\u00e4".encode().decode("latin-1")}, 0),
        ({"Mcp-Param-To": "b"}, 0),
        ({"Mcp-Param-Other": "a"}, 0),
        ({"Mcp-Param-To": f"=?base64?{b64encode('aä'.encode()).decode()}?="}, 1),
        ({}, 1),
    ],
)
def test_headers_that_repeat_arguments_say_the_same(
    open_way: Opening, spending: Spending, headers: dict[str, str], sent: int
) -> None:
    """A proxy before the server, or the server, may go by them."""
    schema = {"type": "object", "properties": {"to": {"type": "string", "x-mcp-header": "To"}}}
    text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    with serving(McpServer()) as mirroring:
        tools = {"tools": [{"name": "send", "inputSchema": schema}]}
        mirroring.ways["tools/list"] = lambda exchange: exchange.result(tools)
        decision = decided('{"to":"aä"}', toolSchemaHash=sha(text))
        way = open_way(mirroring.url, gate=spending.gate(decision=decision))
        assert way.gateway.probe() is None
        post = _call(params={"name": "send", "arguments": {"to": "aä"}})
        way.client.send("POST", post, headers=headers).read()
        assert (len(sent_to(mirroring)), len(spending.spent)) == (sent, sent)


def test_headers_of_too_large_schemas_can_not_be_checked(
    open_way: Opening, spending: Spending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate keeps so many bytes of schemas and checks so many headers. A call without such headers needs neither."""
    monkeypatch.setattr(limits, "LARGEST_SCHEMAS", 1_000)
    to = {"type": "string", "x-mcp-header": "To"}

    def tool(name: str, **properties: Any) -> dict[str, Any]:
        return {"name": name, "inputSchema": {"type": "object", "properties": properties}}

    many = {f"p{number}": {"x-mcp-header": f"H{number}"} for number in range(9)}
    tools = [
        tool("small", to=to),
        tool("large", to={**to, "title": "x" * 950}),
        tool("many", to=to, **many),
    ]
    monkeypatch.setattr(limits, "MOST_MIRRORS", 9)
    with serving(McpServer()) as mirroring:
        mirroring.tools = [tools]
        for one in tools:
            text = json.dumps(one["inputSchema"], sort_keys=True, separators=(",", ":"))
            for headers in ({"Mcp-Param-To": "a"}, {}):
                decision = decided('{"to":"a"}', tool=one["name"], toolSchemaHash=sha(text))
                way = open_way(mirroring.url, gate=spending.gate(decision=decision))
                for _ in range(3):
                    assert way.gateway.probe() is None
                post = _call(params={"name": one["name"], "arguments": {"to": "a"}})
                told = json.loads(way.client.send("POST", post, headers=headers).read())
                assert ("result" in told) == (one["name"] == "small" or not headers), told


def test_a_list_of_deep_and_wide_schemas_takes_little_and_holds_up_nobody(
    open_way: Opening, server: McpServer, spending: Spending
) -> None:
    """The headers that repeat arguments are not looked for before a call has one."""
    leaves = {f"p{number}": {"x-mcp-header": f"H{number}"} for number in range(40_000)}
    schema: Any = {"properties": leaves}
    for _ in range(20):
        schema = {"properties": {"a": schema}}
    tools = [{"name": "send", "inputSchema": schema}]
    way = open_way(server.url, gate=spending.gate())
    found = way.gate
    assert found is not None
    began = time.process_time()
    for _ in range(2):
        found.learn("send", tools[0], "possible")
    assert time.process_time() - began < 5
    assert found._room >= 0


def test_learning_holds_up_neither_the_loop_nor_the_parser_of_other_runs(
    open_way: Opening, server: McpServer, spending: Spending, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    learns = Gate.learn

    def slowly(self: Gate, *told: Any) -> None:
        begun.set()
        assert may_end.wait(30)
        learns(self, *told)

    monkeypatch.setattr(Gate, "learn", slowly)
    way, other = open_way(server.url, gate=spending.gate()), open_way(server.url)
    # A list that is parsed in the thread that all runs share.
    padding = "x" * limits.LARGE_MESSAGE
    server.tools = [[{"name": "look", "description": padding}]]
    lists = threading.Thread(
        target=lambda: way.client.send("POST", way.client.request("tools/list")).read()
    )
    lists.start()
    assert begun.wait(30)
    assert "result" in other.client.call("look", padding=padding)
    assert way.client.send("POST", way.client.request("ping")).status == 200
    may_end.set()
    lists.join()
    begun.clear()
    may_end.clear()
    # The limit of the probe holds, though learning takes longer.
    monkeypatch.setattr(limits, "PROBE_SECONDS", 0.5)
    fault = way.gateway.probe()
    may_end.set()
    assert isinstance(fault, Fault)
    assert "did not tell its tools within" in fault.sentence


def test_a_schema_that_changes_while_the_call_is_approved_is_noticed(
    open_way: Opening, spending: Spending
) -> None:
    with serving(McpServer()) as changing:
        way = open_way(changing.url, gate=spending.gate(decision=decided("{}")))
        assert way.gateway.probe() is None
        tool = {"name": "send", "inputSchema": {"type": "object", "title": "Delete"}}
        changing.ways["tools/list"] = lambda exchange: exchange.result({"tools": [tool]})
        way.client.send("POST", way.client.request("tools/list")).read()
        assert gate.UNAPPROVED in str(way.client.call("send"))
        assert sent_to(changing) == []
