"""Reads the JSON-RPC messages that pass through the gateway, and writes the gateway's own messages."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pipedai_worker.gateway import faults, limits
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
    """Return what `read_posted` does, but of each message only what the gateway looks at if no call is gated."""
    return [_outline(message) for message in read_posted(body)]


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
    """Return the messages of an answer or event; none if it is no JSON-RPC. Raises ServerFailed for too many values,
    and for another encoding than UTF-8, as a client would read that differently.
    """
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


def _check(message: dict[str, Any]) -> None:
    """Raise ValueError unless the message has the members of JSON-RPC alone, a method and an id as MCP has them, and no
    parameter of a call in other letters.
    """
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
    """Make an object of JSON. Raises ValueError for a name that is there twice, that a server in C would take to end
    earlier (NUL), or by which an object in JavaScript may get other members (`__proto__`).
    """
    made = dict(pairs)
    if len(made) < len(pairs) or any("\0" in name or "__proto__" in name for name in made):
        raise ValueError("An object of the message has a name twice, or one that is not plain.")
    return made
