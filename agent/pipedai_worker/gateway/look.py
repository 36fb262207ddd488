"""Looks for something new before the agent starts, by a tool of the run's MCP server that only reads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipedai_worker.clauses import all_hold
from pipedai_worker.disk.tool_calls import ERROR, NO_EFFECT, OK, Call, ToolCalls
from pipedai_worker.gateway import faults, limits, messages
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.gateway.gate import MOST_LEVELS, Gate, canonical
from pipedai_worker.gateway.messages import Effects
from pipedai_worker.running.assigned import Before
from pipedai_worker.running.outcome import iso
from pipedai_worker.values import is_deeper, parse, refuse_constant

if TYPE_CHECKING:
    from pipedai_worker.gateway.probe import Conversation

INVALID_PARAMS = -32602
_MIB = limits.LARGEST_LOOK // limits.MIB


@dataclass(frozen=True)
class Looked:
    """What a look has seen. `digest` is the SHA-256 of the result, and `at` the time, as the API writes it."""

    value: Any = field(repr=False)
    digest: str
    at: str
    is_new: bool


@dataclass(frozen=True)
class Look:
    _before: Before
    _calls: ToolCalls
    # None if no call of the run needs an approval.
    _gate: Gate | None

    async def take(self, talk: Conversation, effects: Effects) -> Looked:
        """Write the call to the journal, call the tool, and judge its result. Raises ServerFailed."""
        tool, why = self._before.tool, ""
        if not effects.knows(tool):
            why = f"The MCP server has no tool {tool!r}"
        elif effects.of(tool) != NO_EFFECT:
            why = f"The MCP server does not say that its tool {tool!r} only reads (readOnlyHint)"
        elif self._gate is not None and self._gate.gates(tool):
            why = f"A person has to approve calls of {tool!r}"
        if why:
            raise faults.client(f"{why}: name another tool in the trigger's `before`.")
        try:
            call = await asyncio.to_thread(self._calls.begin, tool, NO_EFFECT, before=True)
        except OSError:
            raise faults.infra("The worker could not write the look down.") from None
        at = iso(time.time())
        result = await self._ask(talk, call)
        failed = result.get("isError") is True
        await self._end(call, ERROR if failed else OK)
        if failed:
            # The outcome cuts this text only when it has no secrets any more, as the cut could leave a part of one.
            raise faults.infra(f"The tool {tool!r} answered with an error: {_text_of(result)}")
        value, digest = await asyncio.to_thread(_read, result)
        run_if, last = self._before.run_if, self._before.last_digest
        is_new = digest != last if run_if is None else all_hold(run_if, value)
        return Looked(value, digest, at, is_new)

    async def _ask(self, talk: Conversation, call: Call) -> dict[str, Any]:
        tool, arguments = self._before.tool, self._before.arguments
        talk.allow(limits.LARGEST_LOOK, f"The result of {tool!r} is larger than {_MIB} MiB.")
        call.started = time.monotonic()
        try:
            return await talk.request(messages.TOOLS_CALL, {"name": tool, "arguments": arguments})
        except ServerFailed as failed:
            if not failed.unanswered:
                await self._end(call, ERROR)
            if not isinstance(failed, messages.ServerError):
                raise
            if failed.code == INVALID_PARAMS:
                sentence = (
                    f"The MCP server refused the call of {tool!r}: see the trigger's `before`."
                )
                raise faults.client(sentence) from None
            raise faults.infra(str(failed)) from None

    async def _end(self, call: Call, outcome: str) -> None:
        # A call whose end can't be written down counts as one without an answer.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._calls.end, call, outcome)


def _read(result: dict[str, Any]) -> tuple[Any, str]:
    """Return the result, and its digest: the structured content, else text as JSON or as it is, else the whole list of
    the content. Of JSON the order of keys does not matter. Raises ServerFailed for what is no final result, or no JSON.
    """
    if "task" in result or result.get("resultType", "complete") != "complete":
        raise faults.client(
            "The tool of the look gave no result yet, but a task or a question: name another tool."
        )
    value: Any = result.get("structuredContent")
    is_text = False
    if value is None:
        content = result.get("content")
        value = content if isinstance(content, list) else []
        if all(isinstance(item, dict) and isinstance(item.get("text"), str) for item in value):
            value, is_text = _text_of(result), True
            with contextlib.suppress(ValueError):
                value, is_text = parse(value, parse_constant=refuse_constant), False
    if is_deeper(value, MOST_LEVELS):
        raise faults.client("The result of the look is nested too deep.")
    try:
        text = (
            value
            if is_text
            else json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        )
        # The worker could not send a lone surrogate, which an escape can name.
        json.dumps(value, ensure_ascii=False).encode()
        # RFC 8785 has no form for some values, such as a number that not every program reads.
        written = (None if is_text else canonical(value, MOST_LEVELS)) or text.encode()
    except ValueError:
        raise faults.client(
            "The result of the look has a number or a character that JSON can't hold."
        ) from None
    return value, hashlib.sha256(written).hexdigest()


def _text_of(result: dict[str, Any]) -> str:
    content = result.get("content")
    items = content if isinstance(content, list) else ()
    parts = (item.get("text") for item in items if isinstance(item, dict))
    return "\n".join(part for part in parts if isinstance(part, str))
