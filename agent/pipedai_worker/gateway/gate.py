"""Lets a gated tool call pass only with a person's approval for exactly this call, and parks the first one.

The gateway asks the gate about every call, so what claude, its hook or a sub-agent do can't go round it. The hook
only asks the gate what to tell claude.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipedai_worker.disk.tool_calls import POSSIBLE
from pipedai_worker.executors.settings import TOOL_PREFIX
from pipedai_worker.gateway import limits, messages
from pipedai_worker.gateway.exact import (
    MOST_LEVELS,
    anew,
    canonical,
    is_plain,
    may_mirror,
    only_approved,
    repeats,
    shows,
)
from pipedai_worker.gateway.exchange import Request
from pipedai_worker.gateway.waiting import NotAllowed
from pipedai_worker.logs import get_logger
from pipedai_worker.polling.approvals import EVERY_TOOL, Approvals, Decision
from pipedai_worker.reporting.outcome import storable
from pipedai_worker.values import is_deeper, parse

log = get_logger(__name__)

# The most that the arguments of a call that somebody is to approve may take, in bytes of their canonical form.
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
class GatedCall:
    tool: str
    arguments_hash: str
    tool_schema_hash: str

    def fits(self, decision: Decision) -> bool:
        return (self.tool, self.arguments_hash, self.tool_schema_hash) == (
            decision.tool,
            decision.arguments_hash,
            decision.tool_schema_hash,
        )


@dataclass(frozen=True)
class Parked:
    """A call that the hook defers: claude's id of the call, and what the API is told of it."""

    tool_use_id: str
    call: GatedCall
    approval: dict[str, Any]


@dataclass(frozen=True)
class Admitted:
    """Messages that may be sent as `body`, once the approval of the call among them has been spent if it needs one."""

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
        return cls(hashlib.sha256(text).hexdigest(), text if may_mirror(text) else b"")


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
        and keeps the given names, as `with_effect`, for the gate of its next spell; it returns False without room.
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
        # The tools, by names without secrets, that some list of the run has shown as ones that may have an effect.
        self._with_effect = set(with_effect)
        self._parked: Parked | None = None
        # True if claude has sent the parked call all the same, and gone on.
        self._was_sent = False
        # The tools of the calls that the gate has refused, in order.
        self._refused: dict[str, str] = {}

    def learn(self, name: str, tool: dict[str, Any], effect: str) -> None:
        """Learn of a tool from the server's list. The worst effect that a list has told counts. It may take a second,
        so no event loop must call it.
        """
        # The effect is noted first, and a schema that can't be read is noted as one without canonical form.
        if effect == POSSIBLE:
            with self._lock:
                self._with_effect.add(self._shown(name))
        schema = None
        try:
            schema = Schema.of(tool.get("inputSchema"))
        finally:
            with self._lock:
                self._keep(name, schema)

    def _keep(self, name: str, schema: Schema | None) -> None:
        before = self._schemas.get(name)
        self._room += len(before.text or b"") if before else 0
        if schema is not None and len(schema.text or b"") > self._room:
            schema = replace(schema, text=None)
        self._room -= len(schema.text or b"") if schema else 0
        self._schemas[name] = schema

    def _shown(self, name: str) -> str:
        """Return a tool's name without secrets."""
        return str(self._redact(name))

    def parked(self, tool_use_id: object) -> dict[str, Any] | None:
        """Return what the API is to be told of the call with this id of claude's; None if it is not parked."""
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
        """Return what the hook tells claude of a call: nothing, to defer it, or to deny it. It waits for the disk."""
        try:
            asked = parse(body, object_pairs_hook=messages.with_plain_names)
            name, tool_use_id = str(asked["tool_name"]), str(asked["tool_use_id"])
            arguments = asked["tool_input"]
            with self._lock:
                try:
                    return self._judge(name, tool_use_id, arguments, asked.get("agent_id"))
                except Exception as error:
                    self._refuse(tool_use_id, self._named(name))
                    raise _as_refusal(error) from None
        except NotAllowed as refused:
            return _told("deny", str(refused))
        except (ValueError, TypeError, KeyError, AttributeError):
            # The gateway refuses the call if it is gated.
            return {}

    def _judge(
        self, name: str, tool_use_id: str, arguments: Any, agent_id: object
    ) -> dict[str, Any]:
        tool = self._named(name)
        if not self._is_gated(tool):
            return {}
        if agent_id:
            raise NotAllowed(SUB_AGENT)
        call, text = self._described(tool, arguments)
        if self._decision is not None and call.fits(self._decision):
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
        return _told("defer", "A person decides on this call.")

    def _named(self, name: str) -> str:
        """Return the server's name of a tool. If claude's name stands for several or no tools, return that: no list has
        it, so the call is refused.
        """
        short = name.removeprefix(TOOL_PREFIX)
        found = [tool for tool in self._schemas if _REPLACED.sub("_", tool) == short]
        return found[0] if len(found) == 1 else short

    def admit(self, posted: list[dict[str, Any]], request: Request) -> Admitted:
        """Check a POST's messages, given whole, and return what may be sent for them. Raises NotAllowed if one of them
        must not be sent. It may wait for the disk, and large messages take time.
        """
        with self._lock:
            try:
                if any(is_deeper(message, limits.MOST_LEVELS) for message in posted):
                    raise NotAllowed(TOO_DEEP)
                return self._admit(posted, request) or Admitted(None, anew(posted, request))
            except Exception as error:
                for tool in map(messages.tool_of, posted):
                    if tool is not None:
                        self._refuse(f"sent {len(self._refused)}", tool)
                raise _as_refusal(error) from None

    def _refuse(self, call: str, tool: str) -> None:
        if len(self._refused) < limits.MOST_REFUSED:
            # A longer name is that of no tool.
            self._refused[call] = self._shown(tool) if len(tool) <= LONGEST_NAME else ""

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
        if decision is None or not call.fits(decision):
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

    def _is_gated(self, tool: str) -> bool:
        # What was decided on a call holds, whatever the rules have become since the run asked.
        if self._decision is not None and self._decision.tool == tool:
            return True
        may_change = tool not in self._schemas or self._shown(tool) in self._with_effect
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
        if not isinstance(arguments, dict) or text is None or schema is None:
            raise NotAllowed(NOT_CANONICAL)
        if self._shown(tool) != tool:
            raise NotAllowed(NOT_CANONICAL)
        # The API can't store the character NUL, so nobody could be shown these arguments.
        if storable(arguments) != arguments:
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


def _told(decision: str, why: str) -> dict[str, Any]:
    told = {"permissionDecision": decision, "permissionDecisionReason": why}
    return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **told}}
