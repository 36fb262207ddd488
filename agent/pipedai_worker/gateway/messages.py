"""Reads the JSON-RPC messages that pass through the gateway, and writes the gateway's own messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pipedai_worker.gateway import faults, limits
from pipedai_worker.values import TooManyValues, parse, refuse_constant

TOOLS_CALL, TOOLS_LIST = "tools/call", "tools/list"
# A server answers these requests at once, unless it is broken. Other requests may take it as long as the run lasts.
QUICK = frozenset({"initialize", "server/discover", "ping", TOOLS_LIST})
_MEMBERS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_MEMBERS_OF_A_CALL = frozenset({"name", "arguments"})
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
    """Return what `read_posted` does, but of each message only what the gateway looks at if no call is gated."""
    return [_outline(message) for message in read_posted(body)]


def read_posted(body: bytes) -> list[dict[str, Any]]:
    """Return the messages of a POST. Raises ValueError if the server might understand it differently: it is not UTF-8,
    an object has a name twice, or a name of JSON-RPC is in other capitals. Also raises it for too many values.
    """
    value = parse(body.decode(), object_pairs_hook=_without_doubles, parse_constant=refuse_constant)
    messages = value if isinstance(value, list) else [value]
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise ValueError("The body is no JSON-RPC message.")
    if any(_is_ambiguous(message) for message in messages):
        raise ValueError("A member of the message is written in another way than the protocol's.")
    if not all(isinstance(message.get("method", ""), str) for message in messages):
        raise ValueError("The method of a message is no text.")
    if len(messages) > limits.MOST_MESSAGES:
        raise ValueError("The batch has too many messages.")
    if any(len(_id(message) or "") > limits.LONGEST_ID for message in messages):
        raise ValueError("The id of a message is too long.")
    return messages


def read_answered(data: bytes) -> list[dict[str, Any]]:
    """Return the messages of an answer or event; none if it is no JSON-RPC. Raises ServerFailed."""
    try:
        value = parse(data)
    except TooManyValues:
        raise faults.client("The MCP server's answer has too many values.") from None
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


def _outline(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without what would only take memory until it is answered, such as a call's arguments."""
    kept: dict[str, Any] = {name: message[name] for name in ("id", "method") if name in message}
    return {**kept, "params": {"name": tool_of(message)}}


def _id(message: dict[str, Any]) -> str | None:
    found = message.get("id")
    is_id = isinstance(found, (str, int, float)) and not isinstance(found, bool)
    if not is_id or found in _INFINITE:
        return None
    # Many servers make no difference between the ids 1.0 and 1, and answer a request 1.0 with 1.
    return json.dumps(int(found) if isinstance(found, float) and found.is_integer() else found)


def _is_ambiguous(message: dict[str, Any]) -> bool:
    params = message.get("params")
    called = params if isinstance(params, dict) and message.get("method") == TOOLS_CALL else {}
    return any(
        name not in known and name.casefold() in known
        for members, known in ((message, _MEMBERS), (called, _MEMBERS_OF_A_CALL))
        for name in members
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("An object of the message has a name twice.")
    return made
