"""Holds a worker's requests against the worker protocol's part of the API's OpenAPI document, `openapi.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from pipedai_worker import values

# If one of these fields of a report is wrong, the API ignores the field, because a refusal would lose the whole report.
FORGIVEN = frozenset({"toolCalls", "toolCallList", "usageLimit", "denials", "retryAfterSeconds"})
# The OpenAPI document states these bounds only in words.
LARGEST_ARGUMENTS = 64 * 1024
MOST_BYTES_IN_A_CALL = 256 * 1024
LONGEST_LIST = 500
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_DOCUMENT = Path(__file__).with_name("openapi.json")
_FORMATS = FormatChecker(formats=("uuid",))


@_FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    if not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value[:19])
    except ValueError:
        return False
    return True


def parse(data: bytes) -> dict[str, Any] | None:
    try:
        body = values.parse(data or b"{}", parse_constant=values.refuse_constant)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def is_json(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


def problem(kind: str, query: dict[str, list[str]], body: dict[str, Any]) -> str | None:
    """Return a sentence that says why the API would answer the request with 400; None if it would not."""
    if kind == "poll":
        wait = query.get("wait", ["0"])[0]
        sent: Any = int(wait) if re.fullmatch("[0-9]{1,9}", wait) else wait
        return next((f"wait: {each.message}" for each in _validator(kind).iter_errors(sent)), None)
    refused = (text for field, text in _misfits(kind, body) if field not in FORGIVEN)
    return next(refused, None)


def flaws(kind: str, body: dict[str, Any], earlier: dict[str, int] | None = None) -> Iterator[str]:
    """Yield what the API would ignore in a heartbeat or report, such as counts of tool calls below `earlier`."""
    misfits = [text for field, text in _misfits(kind, body) if field in FORGIVEN]
    yield from misfits
    if not misfits:
        yield from _flaws_of_calls(body.get("toolCalls"), body.get("toolCallList"), earlier or {})
        denials = body.get("denials")
        if denials is not None and denials["total"] < len(denials["tools"]):
            yield "denials.total does not cover denials.tools"
        ended = (body.get("status"), body.get("faultClass"))
        if body.get("usageLimit") is not None and ended != ("failed", "infra"):
            yield "usageLimit counts only with the status failed and the faultClass infra"


def _flaws_of_calls(counts: Any, calls: Any, earlier: dict[str, int]) -> Iterator[str]:
    if counts is not None:
        for name in ("effects", "unknown"):
            if counts[name] > counts["total"]:
                yield f"toolCalls.{name} exceeds toolCalls.total"
        for name in ("total", "effects"):
            if counts[name] < earlier.get(name, 0):
                yield f"toolCalls.{name} went down from {earlier[name]} to {counts[name]}"
        if len(calls or ()) > counts["total"]:
            yield "toolCallList has more items than toolCalls.total says"
    if len(calls or ()) > LONGEST_LIST:
        yield f"toolCallList has more than {LONGEST_LIST} items"


def _misfits(kind: str, body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each field of a body that the API can't take, with the reason. A report that a run waits must say for what,
    and in which session it goes on.
    """
    for error in _validator(kind).iter_errors(body):
        path = ".".join(map(str, error.absolute_path))
        yield path.partition(".")[0], f"{path or 'body'}: {error.message}"[:500]
    if kind == "complete" and body.get("status") == "waiting":
        for name in ("approval", "sessionId"):
            if not body.get(name):
                yield name, f"{name} is missing, without which nobody can go on"
    approval = body.get("approval")
    if isinstance(approval, dict) and size(approval.get("arguments")) > LARGEST_ARGUMENTS:
        yield "approval", f"approval.arguments has more than {LARGEST_ARGUMENTS} bytes"
    if kind == "events" and size(body) > MOST_BYTES_IN_A_CALL:
        yield "events", f"the events have more than {MOST_BYTES_IN_A_CALL} bytes"


@cache
def _validator(kind: str) -> Any:
    """Return the validator of the body of requests of a kind, or of a poll's `wait`."""
    document = json.loads(_DOCUMENT.read_text(encoding="utf-8"))
    schema: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        (operation,) = operations.values()
        if path.rpartition("/")[2] != kind:
            continue
        if kind == "poll":
            (schema,) = (
                each["schema"] for each in operation["parameters"] if each["name"] == "wait"
            )
        elif "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    return Draft202012Validator(whole, format_checker=_FORMATS)


def size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
