"""Lets a gated tool call pass only with a person's approval for exactly this call (docs/approvals.md). The gateway asks
the gate about every call, so neither claude nor its hook nor a sub-agent can go round it; the hook only asks what to
tell claude. In a run with rules, each message is built anew from its known members before it is sent, so that the
server gets only what the gate has seen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import rfc8785

from pipedai_worker.disk.tool_calls import POSSIBLE
from pipedai_worker.executors.claude_names import TOOL_PREFIX
from pipedai_worker.gateway import limits, messages
from pipedai_worker.gateway.listener import Request
from pipedai_worker.gateway.messages import NotAllowed
from pipedai_worker.running.assigned import EVERY_TOOL, Approvals, Decision, GatedCall
from pipedai_worker.running.outcome import storable
from pipedai_worker.values import is_deeper, parse

log = logging.getLogger(__name__)

_PLAIN_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)

# The API takes arguments that are nested this deep at most.
MOST_LEVELS = 62
# The keys that MCP itself has in `_meta`. A server may act on any other key.
_META = re.compile(r"progressToken|traceparent|io\.modelcontextprotocol/.*")
_PARAM, _MIRRORED = "mcp-param-", "x-mcp-header"
# The headers that MCP, HTTP and tracing need. None has a `_`, which servers by WSGI don't tell from a `-`.
_HEADERS = re.compile(r"accept|content-type|user-agent|last-event-id|traceparent|mcp-[a-z0-9-]+")


def with_known_headers(request: Request) -> Request:
    known = tuple(pair for pair in request.headers if _HEADERS.fullmatch(pair[0]))
    return replace(request, headers=known)


def rebuilt(posted: list[dict[str, Any]], request: Request) -> bytes:
    """Return a POST's messages, made anew from their known members. Raises ValueError for a number that JSON lacks."""
    made = [_rebuilt(message) for message in posted]
    return _text(made if request.body.lstrip()[:1] == b"[" else made[0])


def _rebuilt(message: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "method", "params") if "method" in message else ("id", "result", "error")
    kept = {name: message[name] for name in names if name in message}
    params = kept.get("params")
    if messages.tool_of(message) is not None and isinstance(params, dict):
        kept["params"] = {name: params[name] for name in messages.OF_A_CALL if name in params}
    return {"jsonrpc": "2.0", **kept}


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def is_plain(posted: list[dict[str, Any]], request: Request) -> bool:
    """Tell whether a POST's headers agree with its messages, and no method is `tools/call` in other capitals."""
    if not _PLAIN_TYPE.fullmatch(request.header("content-type") or ""):
        return False
    for message in posted:
        method, tool = message.get("method", ""), messages.tool_of(message)
        if tool is None and method.lower() == messages.TOOLS_CALL:
            return False
        # A server, or a proxy before it, may go by these headers of MCP 2026-07-28 instead of by the body.
        if request.has("mcp-method") and request.header("mcp-method") != method:
            return False
        if request.has("mcp-name") and tool is not None and request.header("mcp-name") != tool:
            return False
    return True


def mirrors(schema: Any) -> dict[str, tuple[str, ...]] | None:
    """Return the headers that repeat arguments, by a tool's schema (`x-mcp-header`); None if there are too many."""
    found: dict[str, tuple[str, ...]] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    while waiting and len(found) <= limits.MOST_MIRRORS:
        path, one = waiting.pop()
        properties = one.get("properties") if isinstance(one, dict) else None
        header = one.get(_MIRRORED) if isinstance(one, dict) else None
        if path and isinstance(header, str):
            found[f"{_PARAM}{header.lower()}"] = path
        for name, inner in properties.items() if isinstance(properties, dict) else ():
            waiting.append(((*path, name), inner))
    return found if len(found) <= limits.MOST_MIRRORS else None


def repeats(request: Request, arguments: dict[str, Any], schema: bytes | None) -> bool:
    """Tell whether headers that repeat a call's arguments agree with them by the tool's canonical schema, if known."""
    names = {name for name, _ in request.headers if name.startswith(_PARAM)}
    if not names:
        return True
    headers = mirrors(json.loads(schema)) if schema else None
    if headers is None or len(names) > limits.MOST_MIRRORS:
        return False
    for name in names:
        value: Any = arguments if name in headers else None
        for step in headers.get(name, ()):
            value = value.get(step) if isinstance(value, dict) else None
        text = value if isinstance(value, str) else json.dumps(value)
        as_base64 = f"=?base64?{b64encode(text.encode()).decode()}?="
        if value is None or request.header(name) not in {text, as_base64}:
            return False
    return True


def only_approved(message: dict[str, Any], arguments: bytes) -> bytes:
    """Return a call with its arguments in the form that was approved, and without parameters that nobody has seen."""
    params = {"name": message["params"]["name"]}
    meta = message["params"].get("_meta")
    if isinstance(meta, dict):
        params["_meta"] = {name: value for name, value in meta.items() if _META.fullmatch(name)}
    call = {"id": message["id"], "method": messages.TOOLS_CALL, "params": params}
    return _text({"jsonrpc": "2.0", **call})[:-2] + b',"arguments":' + arguments + b"}}"


def shows(shown: Any, value: Any) -> bool:
    """Tell whether JSON without secrets still has each member of a value, so that nothing is hidden from a person."""
    if isinstance(shown, dict) and isinstance(value, dict):
        return list(shown) == list(value) and shows([*shown.values()], [*value.values()])
    if isinstance(shown, list) and isinstance(value, list):
        return len(shown) == len(value) and all(map(shows, shown, value))
    return not isinstance(shown, (dict, list)) and not isinstance(value, (dict, list))


def canonical(value: Any, levels: int) -> bytes | None:
    """Return the RFC 8785 form of JSON; None for more levels than these, or a number that some programs misread."""
    try:
        return None if is_deeper(value, levels) else rfc8785.dumps(value)
    except ValueError:
        return None


# The most bytes that the canonical form of a call's arguments may have, if a person is to approve the call.
LARGEST_ARGUMENTS = 64 * 1024
# The longest name of a tool that the API takes.
LONGEST_NAME = 200
ALONE = "Another call waits for a person's approval. Call this again, alone, after it."
SUB_AGENT = (
    "A person must approve this call, and only the main agent can ask for that. Nothing was done."
)
NO_ROOM = "A person must approve this call, but the worker has no room for a run that waits. Nothing was done."
UNAPPROVED = "A person must approve exactly this call, and nobody has. Nothing was done."
UNLISTED = "The MCP server has not listed this tool, so the call was not sent."
BATCHED = "A call that a person has approved must be sent alone, as a request. Nothing was done."
ODD = "The worker can't be sure how the MCP server would read this message, so it was not sent."
TOO_DEEP = "The message has too many levels of lists and objects, so it was not sent."
NOT_CANONICAL = (
    "A person must approve this call, but its name, arguments or schema can't be shown exactly."
)
TOO_LARGE = "A person must approve this call, but its arguments exceed 64 KiB. Nothing was done."
UNSPENT = "The approval of this call could not be used, so the call was not sent."
REJECTED = "A person has rejected this call. Nothing was done."
# Claude replaces these characters of a tool's name.
_REPLACED = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True)
class Parked:
    """A call that the hook defers: claude's id of the call, and its description for the API."""

    tool_use_id: str
    call: GatedCall
    approval: dict[str, Any]


@dataclass(frozen=True)
class Admitted:
    """Messages that may be sent as `body`. If one of them is a call with an approval, this has to be spent first."""

    approval_id: str | None
    body: bytes


@dataclass(frozen=True)
class Schema:
    """What the gate keeps of a listed tool's schema."""

    hash: str
    # The canonical form if it may name headers that repeat arguments, else empty; None if there was no room for it.
    text: bytes | None

    @classmethod
    def of(cls, value: Any) -> Schema | None:
        """Return None for a schema without canonical form."""
        text = canonical(value, limits.MOST_LEVELS)
        if text is None:
            return None
        may_mirror = f'"{_MIRRORED}"'.encode() in text
        return cls(hashlib.sha256(text).hexdigest(), text if may_mirror else b"")


class Gate:
    """The approvals of one run while one program works on it. Safe to use from several threads."""

    def __init__(
        self,
        approvals: Approvals,
        *,
        redact: Callable[[Any], Any],
        make_room: Callable[[str, set[str]], bool],
        spend: Callable[[str], None],
        with_effect: Iterable[str] = (),
    ) -> None:
        """`redact` removes secrets from JSON. `make_room` lets the run wait for a decision on a call of the given tool,
        and keeps the given names, as `with_effect`, for the gate of the run's next part; it returns False without room.
        `spend` uses an approval up at the API, and raises an exception unless the API confirms that.
        """
        self._rules = approvals.rules
        self._decision = approvals.decision
        self._redact = redact
        self._make_room = make_room
        self._spend = spend
        self._lock = threading.Lock()
        # The schema of each listed tool; None if it has no canonical form.
        self._schemas: dict[str, Schema | None] = {}
        # How many bytes of schemas the gate may still keep.
        self._room = limits.LARGEST_SCHEMAS
        # The names, without secrets, of the tools that may have an effect by any list of the run so far.
        self._with_effect = set(with_effect)
        self._parked: Parked | None = None
        # True if claude has sent the parked call after all, and gone on.
        self._was_sent = False
        # The tools of the calls that the gate has refused, in order.
        self._refused: dict[str, str] = {}

    def learn(self, name: str, tool: dict[str, Any], effect: str) -> None:
        """Note a listed tool. Its worst effect counts. This may take a second, so no event loop may call it."""
        # The effect is noted first, and a schema that can't be read is noted as one without canonical form.
        if effect == POSSIBLE:
            with self._lock:
                self._with_effect.add(self._redacted(name))
        schema = None
        try:
            schema = Schema.of(tool.get("inputSchema"))
        finally:
            with self._lock:
                self._keep_schema(name, schema)

    def _keep_schema(self, name: str, schema: Schema | None) -> None:
        before = self._schemas.get(name)
        self._room += len(before.text or b"") if before else 0
        if schema is not None and len(schema.text or b"") > self._room:
            schema = replace(schema, text=None)
        self._room -= len(schema.text or b"") if schema else 0
        self._schemas[name] = schema

    def _redacted(self, name: str) -> str:
        """Return a tool's name without secrets."""
        return str(self._redact(name))

    def parked(self, tool_use_id: object) -> dict[str, Any] | None:
        """Return the description for the API of the call with this id of claude's; None if it is not parked."""
        with self._lock:
            found = self._parked
        return found.approval if found is not None and found.tool_use_id == tool_use_id else None

    def denied(self, *, waits: bool) -> dict[str, str]:
        """Return the tools of the calls that were not made, in order, by an id of each call. `waits` says that the run
        waits for the parked one.
        """
        with self._lock:
            parked = None if waits or self._was_sent else self._parked
            return {**self._refused, **({parked.tool_use_id: parked.call.tool} if parked else {})}

    def answer_hook(self, body: bytes) -> dict[str, Any]:
        """Return the hook's answer on a call: an empty one, a deferral, or a denial. It waits for the disk."""
        try:
            asked = parse(body, object_pairs_hook=messages.with_plain_names)
            name, tool_use_id = str(asked["tool_name"]), str(asked["tool_use_id"])
            arguments = asked["tool_input"]
            with self._lock:
                try:
                    return self._judge(name, tool_use_id, arguments, asked.get("agent_id"))
                except Exception as error:
                    self._refuse(tool_use_id, self._name_at_server(name))
                    raise _as_refusal(error) from None
        except NotAllowed as refused:
            return _hook_answer("deny", str(refused))
        except (ValueError, TypeError, KeyError, AttributeError):
            # The gateway refuses the call if it is gated.
            return {}

    def _judge(
        self, name: str, tool_use_id: str, arguments: Any, agent_id: object
    ) -> dict[str, Any]:
        tool = self._name_at_server(name)
        if not self._is_gated(tool):
            return {}
        if agent_id:
            raise NotAllowed(SUB_AGENT)
        call, text = self._described(tool, arguments)
        if self._decision is not None and call == self._decision.call:
            return {}
        other = self._parked is not None and self._parked.tool_use_id != tool_use_id
        if other and not self._was_sent:
            raise NotAllowed(ALONE)
        whole = json.loads(text)
        shown = self._redact(whole)
        is_name = 0 < len(tool) <= LONGEST_NAME and tool.isprintable()
        if not is_name or not shows(shown, whole):
            raise NotAllowed(NOT_CANONICAL)
        if len(json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()) > (
            LARGEST_ARGUMENTS
        ):
            raise NotAllowed(TOO_LARGE)
        if not self._make_room(tool, self._with_effect):
            raise NotAllowed(NO_ROOM)
        approval = {
            "tool": tool,
            "arguments": shown,
            "argumentsHash": call.arguments_hash,
            "toolSchemaHash": call.tool_schema_hash,
        }
        self._parked, self._was_sent = Parked(tool_use_id, call, approval), False
        return _hook_answer("defer", "A person decides on this call.")

    def _name_at_server(self, name: str) -> str:
        """Return the server's name of a tool. If claude's name stands for several or no tools, return that: no list has
        it, so the call is refused.
        """
        short = name.removeprefix(TOOL_PREFIX)
        found = [tool for tool in self._schemas if _REPLACED.sub("_", tool) == short]
        return found[0] if len(found) == 1 else short

    def admit(self, posted: list[dict[str, Any]], request: Request) -> Admitted:
        """Return what may be sent for a POST's whole messages, which takes time. Raises NotAllowed if one must not."""
        with self._lock:
            try:
                if any(is_deeper(message, limits.MOST_LEVELS) for message in posted):
                    raise NotAllowed(TOO_DEEP)
                return self._admit(posted, request) or Admitted(None, rebuilt(posted, request))
            except Exception as error:
                for tool in map(messages.tool_of, posted):
                    if tool is not None:
                        self._refuse(f"sent {len(self._refused)}", tool)
                raise _as_refusal(error) from None

    def _refuse(self, call: str, tool: str) -> None:
        if len(self._refused) < limits.MOST_REFUSED:
            # No tool has a longer name than this, so a longer one is not reported.
            self._refused[call] = self._redacted(tool) if len(tool) <= LONGEST_NAME else ""

    def _admit(self, posted: list[dict[str, Any]], request: Request) -> Admitted | None:
        if not is_plain(posted, request):
            raise NotAllowed(ODD)
        admitted = None
        for message in posted:
            tool = messages.tool_of(message)
            if tool is None:
                continue
            if tool not in self._schemas:
                raise NotAllowed(UNLISTED)
            if self._is_gated(tool):
                call, text = self._described(tool, message["params"].get("arguments", {}))
                decision = self._decision_on(call)
                if len(posted) > 1 or messages.request_id(message) is None:
                    raise NotAllowed(BATCHED)
                schema = self._schemas[tool]
                if not repeats(request, json.loads(text), schema.text if schema else None):
                    raise NotAllowed(ODD)
                admitted = Admitted(decision.approval_id, only_approved(message, text))
        if admitted is not None:
            # No second call passes while the API is asked.
            self._decision = None
        return admitted

    def _decision_on(self, call: GatedCall) -> Decision:
        decision = self._decision
        if decision is None or call != decision.call:
            self._was_sent |= self._parked is not None and self._parked.call == call
            raise NotAllowed(UNAPPROVED)
        if not decision.approved:
            raise NotAllowed(
                f"{REJECTED} The reason: {decision.reason}" if decision.reason else REJECTED
            )
        return decision

    def spend(self, approval_id: str) -> None:
        """Use an approval up at the API, which may take as long as the run lasts. Raises NotAllowed if that fails."""
        try:
            self._spend(approval_id)
        except Exception as error:
            log.warning("an approval was not used: %s", type(error).__name__)
            raise NotAllowed(UNSPENT) from None

    def gates(self, tool: str) -> bool:
        """Tell whether a person has to approve calls of this tool, as far as it is known."""
        with self._lock:
            return self._is_gated(tool)

    def _is_gated(self, tool: str) -> bool:
        # A decision on a call holds even if the rules have changed since the run asked for it.
        if self._decision is not None and self._decision.call.tool == tool:
            return True
        may_change = tool not in self._schemas or self._redacted(tool) in self._with_effect
        return any(
            (EVERY_TOOL in rule.tools or tool in rule.tools)
            and (may_change or not rule.only_effects)
            for rule in self._rules
        )

    def _described(self, tool: str, arguments: Any) -> tuple[GatedCall, bytes]:
        """Return a call by its hashes, and the canonical text of its arguments. Raises NotAllowed."""
        if tool not in self._schemas:
            raise NotAllowed(UNLISTED)
        text, schema = canonical(arguments, MOST_LEVELS), self._schemas[tool]
        if text is None or schema is None or self._redacted(tool) != tool:
            raise NotAllowed(NOT_CANONICAL)
        # The API can't store the character NUL, so nobody could be shown arguments with one.
        if not isinstance(arguments, dict) or storable(arguments) != arguments:
            raise NotAllowed(NOT_CANONICAL)
        if len(text) > LARGEST_ARGUMENTS:
            raise NotAllowed(TOO_LARGE)
        return GatedCall(tool, hashlib.sha256(text).hexdigest(), schema.hash), text


def _as_refusal(error: Exception) -> NotAllowed:
    """Return the refusal for an exception of the gate: what the gate fails to judge is not sent."""
    if isinstance(error, NotAllowed):
        return error
    log.warning("a message could not be judged: %s", type(error).__name__)
    return NotAllowed(ODD)


def _hook_answer(decision: str, why: str) -> dict[str, Any]:
    decided = {"permissionDecision": decision, "permissionDecisionReason": why}
    return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decided}}
