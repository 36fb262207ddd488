"""Reads and writes JSON-RPC messages, and knows what a tool call may change and which request waits for an answer."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, Union

from pipedai_worker.disk.durable import logged
from pipedai_worker.disk.tool_calls import (
    ERROR,
    IDEMPOTENT,
    LONGEST_CALL_ID,
    LONGEST_TOOL_NAME,
    NO_EFFECT,
    OK,
    POSSIBLE,
    Call,
    ToolCalls,
)
from pipedai_worker.executors.claude_names import CALL_KEY
from pipedai_worker.gateway import faults, limits
from pipedai_worker.gateway.limits import MOST_TOOLS, MOST_WAITING
from pipedai_worker.running.outcome import CLIENT
from pipedai_worker.running.stopping import in_background
from pipedai_worker.values import TooManyValues, parse, refuse_constant

INITIALIZE, TOOLS_CALL, TOOLS_LIST = "initialize", "tools/call", "tools/list"
# A server answers these requests at once, unless it is broken. Other requests may take it as long as the run lasts.
QUICK = frozenset({INITIALIZE, "server/discover", "ping", TOOLS_LIST})
_MEMBERS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_METHOD = re.compile(r"[A-Za-z0-9/_.$-]+")
# The parameters that some version of MCP gives to a call, in the order in which they are sent.
OF_A_CALL = ("name", "arguments", "task", "inputResponses", "requestState", "_meta")
_INFINITE = (float("inf"), float("-inf"))
PARSE_ERROR, SERVER_ERROR = -32700, -32000

Read = TypeVar("Read")
# All gateways of the worker share this one thread, so that only one large message is parsed at a time.
_PARSER = ThreadPoolExecutor(1, "parser")


async def read_apart(data: bytes, read: Callable[[bytes], Read]) -> Read:
    """Return `read(data)`, which should be small. A large message is parsed apart from the event loop, in its turn."""
    if len(data) < limits.LARGE_MESSAGE:
        return read(data)
    return await asyncio.get_running_loop().run_in_executor(_PARSER, read, data)


def read_outlines(body: bytes) -> list[dict[str, Any]]:
    """Return what `read_posted` does, but of each message only what the gateway looks at if no call is gated. The rest,
    such as a call's arguments, would only take memory until the message is answered.
    """
    return [
        {
            **{name: message[name] for name in ("id", "method") if name in message},
            "params": {"name": tool_of(message), "_meta": {CALL_KEY: call_id_of(message)}},
        }
        for message in read_posted(body)
    ]


def read_posted(body: bytes) -> list[dict[str, Any]]:
    """Return the messages of a POST. Raises ValueError for too many values, and if the server might understand the POST
    differently: it is not UTF-8, or has a name, a member, a method or an id that a message of MCP never has.
    """
    value = parse(body.decode(), object_pairs_hook=with_plain_names, parse_constant=refuse_constant)
    messages = value if isinstance(value, list) else [value]
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise ValueError("The body is no JSON-RPC message.")
    if len(messages) > limits.MOST_MESSAGES:
        raise ValueError("The batch has too many messages.")
    for message in messages:
        _check(message)
    return messages


def read_answered(data: bytes) -> list[dict[str, Any]]:
    """Return the messages of an answer; none if it is no JSON-RPC. Raises ServerFailed for too many, or no UTF-8."""
    try:
        value = parse(data.decode("utf-8-sig"))
    except TooManyValues:
        raise faults.client("The MCP server's answer has too many values.") from None
    except UnicodeDecodeError:
        raise faults.client("The MCP server's answer is not in UTF-8.") from None
    except ValueError:
        return []
    messages = value if isinstance(value, list) else [value]
    return [message for message in messages if isinstance(message, dict)]


def request_id(message: dict[str, Any]) -> str | None:
    """Return the id of a request as JSON, which tells 1 from "1"; None for a notification or an answer."""
    return _id(message) if "method" in message else None


def answer_id(message: dict[str, Any]) -> str | None:
    return None if "method" in message else _id(message)


def tool_of(message: dict[str, Any]) -> str | None:
    if message.get("method") != TOOLS_CALL:
        return None
    params = message.get("params")
    name = params.get("name") if isinstance(params, dict) else None
    return name if isinstance(name, str) else ""


def call_id_of(message: dict[str, Any]) -> str | None:
    """Return the id by which the client tells of a tool call elsewhere; None if it names none."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    found = meta.get(CALL_KEY) if isinstance(meta, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= LONGEST_CALL_ID else None


def is_quick(message: dict[str, Any]) -> bool:
    """Tell whether the server has to answer the message, or confirm that it has come, at once."""
    return request_id(message) is None or message.get("method") in QUICK


def is_error(message: dict[str, Any]) -> bool:
    result = message.get("result")
    return not isinstance(result, dict) or result.get("isError") is True


def errors(ids: list[str], sentence: str, *, batch: bool) -> bytes:
    made = [error(one, SERVER_ERROR, sentence) for one in ids]
    return b"[" + b",".join(made) + b"]" if batch else b"".join(made)


def error(id_as_json: str, code: int, sentence: str) -> bytes:
    problem = json.dumps({"code": code, "message": sentence})
    return f'{{"jsonrpc":"2.0","id":{id_as_json},"error":{problem}}}'.encode()


def _id(message: dict[str, Any]) -> str | None:
    found = message.get("id")
    is_id = isinstance(found, (str, int, float)) and not isinstance(found, bool)
    if not is_id or found in _INFINITE:
        return None
    # Many servers make no difference between the ids 1.0 and 1, and answer a request 1.0 with 1.
    return json.dumps(int(found) if isinstance(found, float) and found.is_integer() else found)


def _check(message: dict[str, Any]) -> None:
    """Raise ValueError unless a message has only members of JSON-RPC, and method, id and parameters as MCP has them."""
    method, params = message.get("method", TOOLS_LIST), message.get("params")
    if not message.keys() <= _MEMBERS:
        raise ValueError("The message has a member that is none of JSON-RPC's.")
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        raise ValueError("The method of a message is none.")
    if message.get("id") is not None and not 0 < len(_id(message) or "") <= limits.LONGEST_ID:
        raise ValueError("The id of a message is none, or too long.")
    for name in params if isinstance(params, dict) and method == TOOLS_CALL else ():
        if name not in OF_A_CALL and name.casefold() in OF_A_CALL:
            raise ValueError("A parameter of the call is written in another way than MCP's.")


def with_plain_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON. Raises ValueError for a name that servers may read differently: one that is there twice,
    one with NUL, where a name in C ends, and `__proto__`, which gives an object in JavaScript other members.
    """
    made = dict(pairs)
    if len(made) < len(pairs) or any("\0" in name or "__proto__" in name for name in made):
        raise ValueError("An object of the message has a name twice, or one that is not plain.")
    return made


log = logging.getLogger(__name__)


class ServerError(faults.ServerFailed):
    """The server answered with a JSON-RPC error."""

    def __init__(self, method: str, code: object) -> None:
        # A larger number is no code of a protocol, and could have thousands of digits.
        self.code = code if isinstance(code, int) and abs(code) < 2**31 else None
        named = f" ({self.code})" if self.code is not None else ""
        super().__init__(CLIENT, f"The MCP server answered `{method}` with an error{named}.")


class ListOfTools:
    """Waits for the answer to a `tools/list` request, as a Call waits for the answer to a tool call."""


Awaited = Union[Call, ListOfTools]


class Waiting:
    """The requests that wait for an answer, by session and by id as JSON. Answers to tool calls go to the journal."""

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
        heard, lists = await read_apart(data, partial(self.hear, session))
        for result in lists:
            await self._effects.learn_apart(result)
        return heard

    def hear(self, session: str, data: bytes) -> tuple[set[str], list[Any]]:
        """Return the ids that a message or batch answers, and the lists of tools in it. Raises ServerFailed."""
        heard, lists = set(), []
        for message in read_answered(data):
            found = answer_id(message)
            if found is None:
                continue
            if _is_text(found) not in self._kinds:
                # Some clients would take the answer to "1" for one to 1.
                raise faults.client("The MCP server's answer has an id that no request had.")
            heard.add(found)
            with self._lock:
                awaited = self._awaited.pop((session, found), None)
            if isinstance(awaited, Call):
                self.end(awaited, ERROR if is_error(message) else OK)
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
        with logged("the end of a tool call can't be written down", logging.ERROR):
            self._calls.end(call, outcome)


class Effects:
    """What calls of a server's tools may change. The last answer to `tools/list` that names a tool counts."""

    def __init__(self, learned: Callable[[str, dict[str, Any], str], None] | None = None) -> None:
        """`learned` is called with each listed tool, by its name, and with its effect."""
        self._by_tool: dict[str, str] = {}
        self._learned = learned

    async def learn_apart(self, result: Any) -> None:
        """Learn from a list of tools in a thread: a large one takes a second, and no other request must wait for it."""
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

    def knows(self, tool: str) -> bool:
        return tool in self._by_tool

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
