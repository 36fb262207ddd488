"""Knows what tool calls may change, what waits for leave to change something, and what waits for which answer."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Union

from pipedai_worker.disk.tool_calls import (
    ERROR,
    IDEMPOTENT,
    LONGEST_TOOL_NAME,
    NO_EFFECT,
    OK,
    POSSIBLE,
    Call,
    ToolCalls,
)
from pipedai_worker.gateway import faults, messages
from pipedai_worker.gateway.limits import MOST_TOOLS, MOST_WAITING
from pipedai_worker.logs import get_logger
from pipedai_worker.running.stopping import in_background

log = get_logger(__name__)


class ListOfTools:
    """Waits for the answer to a `tools/list` request, as a Call waits for the answer to a tool call."""


Awaited = Union[Call, ListOfTools]


class Waiting:
    """What waits for an answer, by session and by the request's id as JSON. Answers to tool calls go to the journal."""

    def __init__(self, calls: ToolCalls, effects: Effects) -> None:
        self._calls = calls
        self._effects = effects
        self._awaited: OrderedDict[tuple[str, str], Awaited] = OrderedDict()
        self._lock = threading.Lock()
        # Whether the client's requests so far had ids that are texts (True), numbers (False), or both.
        self._kinds: set[bool] = set()

    def ask(self, ids: list[str]) -> None:
        """Remember what kind of ids the client's requests have."""
        self._kinds.update(map(_is_text, ids))

    def expect(self, session: str, id_as_json: str, awaited: Awaited) -> None:
        """Remember what waits for the answer to the request with this id. The newest request with an id counts."""
        with self._lock:
            self._awaited.pop((session, id_as_json), None)
            self._awaited[session, id_as_json] = awaited
            while len(self._awaited) > MOST_WAITING:
                self._awaited.popitem(last=False)

    async def hear_apart(self, session: str, data: bytes) -> set[str]:
        """Take a server's message or batch, and return the ids that it answers. Raises ServerFailed."""
        heard, lists = await messages.read_apart(data, partial(self.hear, session))
        for result in lists:
            await self._effects.learn_apart(result)
        return heard

    def hear(self, session: str, data: bytes) -> tuple[set[str], list[Any]]:
        """Return the ids that a message or batch answers, and the lists of tools in it. Raises ServerFailed."""
        heard, lists = set(), []
        for message in messages.read_answered(data):
            found = messages.answer_id(message)
            if found is None:
                continue
            if _is_text(found) not in self._kinds:
                # Some clients would take the answer to "1" for one to 1.
                raise faults.client("The MCP server's answer has an id that no request had.")
            heard.add(found)
            with self._lock:
                awaited = self._awaited.pop((session, found), None)
            if isinstance(awaited, Call):
                self.end(awaited, ERROR if messages.is_error(message) else OK)
            elif awaited is not None:
                lists.append(message.get("result"))
        return heard, lists

    def fail(self, session: str, ids: list[str]) -> None:
        """End the calls of these requests as failed, because the server has refused them or never got them."""
        for one in ids:
            with self._lock:
                awaited = self._awaited.pop((session, one), None)
            if isinstance(awaited, Call):
                self.end(awaited, ERROR)

    def end(self, call: Call, outcome: str) -> None:
        """Write down how a tool call ended. If the disk fails, the call counts as one that got no answer."""
        try:
            self._calls.end(call, outcome)
        except OSError as error:
            log.error("the end of a tool call can't be written down: %s", error.strerror)


class Effects:
    """What calls of a server's tools may change. The last answer to `tools/list` that names a tool counts."""

    def __init__(self, learned: Callable[[str, dict[str, Any], str], None] | None = None) -> None:
        """`learned` is called with each listed tool, by its name, and with its effect."""
        self._by_tool: dict[str, str] = {}
        self._learned = learned

    async def learn_apart(self, result: Any) -> None:
        """Learn from a list of tools in a thread, as a large one takes a second, in which others must not wait."""
        await asyncio.to_thread(self.learn, result)

    def learn(self, result: Any) -> None:
        tools = result.get("tools") if isinstance(result, dict) else None
        for tool in tools if isinstance(tools, list) else ():
            name = tool.get("name") if isinstance(tool, dict) else None
            if not isinstance(name, str) or len(name) > LONGEST_TOOL_NAME:
                continue
            if name in self._by_tool or len(self._by_tool) < MOST_TOOLS:
                self._by_tool[name] = effect = _annotated(tool)
                if self._learned is not None:
                    self._learned(name, tool, effect)

    def of(self, tool: str) -> str:
        """Return the effect of a tool. A tool that no list has named may have any effect, so it is POSSIBLE."""
        return self._by_tool.get(tool, POSSIBLE)


def _is_text(id_as_json: str) -> bool:
    return id_as_json[:1] == '"'


def _annotated(tool: dict[str, Any]) -> str:
    annotations = tool.get("annotations")
    if not isinstance(annotations, dict):
        return POSSIBLE
    if annotations.get("readOnlyHint") is True:
        return NO_EFFECT
    return IDEMPOTENT if annotations.get("idempotentHint") is True else POSSIBLE


class NotAllowed(Exception):  # noqa: N818 - carries the sentence for the client
    """A call must not be sent to the MCP server. The exception's text tells the client why."""

    unanswered = False


class FirstEffect:
    """Asks once whether calls that may change something may be sent. If `ask` raises, the next call asks again."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._asked: asyncio.Future[None] | None = None

    async def allowed(self) -> None:
        """Return when tool calls that may change something may be sent. Raises NotAllowed if they must not be sent."""
        if self._asked is None or (self._asked.done() and self._asked.exception() is not None):
            self._asked = in_background("gateway first effect", self._ask)
        try:
            await asyncio.shield(self._asked)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.info("a call was not sent: %s", type(error).__name__)
            raise NotAllowed("The run is being stopped, so this call was not sent.") from None
