"""A gated call reaches the server only with an approval for exactly this call, however it is sent (SPEC §27)."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pipedai_worker.disk.sessions import Session
from pipedai_worker.executors import settings
from pipedai_worker.executors.base import JobSession
from pipedai_worker.gateway import Credentials, Gate, gate
from pipedai_worker.polling.approvals import Approvals
from pipedai_worker.polling.assigned import AssignedRun
from pipedai_worker.redact import Redactor
from pipedai_worker.running.gating import Ending, gate_of
from pipedai_worker.running.stopping import StopRequest
from pipedai_worker.running.workplaces import Workplace

from .conftest import Way, events_in
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
        (json.dumps(LOOK).encode(), {"Content-Encoding": "gzip"}),
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


def test_the_older_transport_has_the_same_gate(
    gated: Opening, older: McpServer, spending: Spending
) -> None:
    decision = decided('{"a":1}')
    way = gated(at=older, decision=decision)
    path = next(events_in(way.client.send("GET")))["data"]
    for arguments, status in (({"a": 2}, 502), ({"a": 1}, 202), ({"a": 1}, 502)):
        post = _call(params={"name": "send", "arguments": arguments})
        assert way.client.send("POST", post, path=path).status == status
    assert [params["arguments"] for params in sent_to(older)] == [{"a": 1}]
    assert spending.spent == [decision["approvalId"]]


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
        ending = Ending(StopRequest())
        rest = {"api": nothing, "sessions": nothing, "executor": nothing, "ending": ending}
        found = gate_of(run, place, redactor=Redactor([]), **rest)
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


def hook(way: Way, tmp_path: Path, tool: str, arguments: Any, **fields: Any) -> dict[str, Any]:
    """Run the hook's program as claude does, and return what it tells claude."""
    config = tmp_path / "mcp.json"
    config.write_bytes(settings.configuration(way.gateway.url, 60))
    asked = {
        "tool_name": f"mcp__trigger__{tool}",
        "tool_use_id": "toolu_1",
        "tool_input": arguments,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(settings.HOOK), str(config), "60"],
        input=json.dumps({**asked, **fields}).encode(),
        capture_output=True,
        check=True,
    )
    told = json.loads(done.stdout).get("hookSpecificOutput", {})
    return {"decision": told.get("permissionDecision"), "why": told.get("permissionDecisionReason")}


def test_the_hook_defers_the_first_gated_call_and_denies_the_others(
    gated: Opening, server: McpServer, spending: Spending, tmp_path: Path
) -> None:
    way = gated()
    found = way.gate
    assert found is not None
    assert hook(way, tmp_path, "look", {})["decision"] is None
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
    assert "hooks" not in " ".join(settings.options(None, Path("mcp.json")))


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
