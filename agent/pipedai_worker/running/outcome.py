"""Describes how a run ended, as the API's `complete` takes it, and decides whether its output is accepted."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from pipedai_worker.redact import Redactor
from pipedai_worker.values import number, shortened, whole, with_strings

SHORT_MESSAGE_LENGTH = 500
ERROR_MESSAGE_LENGTH = 8_000
LABEL_LENGTH = 255
LARGEST_EXIT_CODE = 2**31 - 1
LARGEST_COST_USD = 99_999_999
COST_DECIMALS = 6
LONGEST_RETRY_AFTER_SECONDS = 24 * 3600
LIMIT_KIND_LENGTH = 64
TOOL_NAME_LENGTH, MOST_DENIED_NAMES = 200, 20

SUCCEEDED, FAILED, TIMED_OUT, CANCELED = "succeeded", "failed", "timed_out", "canceled"
# Not an end: the run waits until a person has decided on one of its tool calls.
WAITING = "waiting"
INFRA, CLIENT, NONE = "infra", "client", "none"

# Stands for an output that is missing. None would be mistaken for JSON's null, which is an output.
ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "ABSENT"})()

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Fault:
    """Whose fault a failure is, and a sentence on what happened."""

    fault_class: str
    sentence: str
    rate_limited: bool = False
    # True if claude has spent what it was allowed to spend.
    over_budget: bool = False


@dataclass(frozen=True)
class UsageLimit:
    """A usage limit of claude's account: its end, in seconds since 1970, and claude's word for it (`five_hour`)."""

    resets_at: float
    kind: str

    def body(self) -> dict[str, str]:
        kind = _cut(self.kind, LIMIT_KIND_LENGTH) or "unknown"
        return {"resetsAt": iso(self.resets_at), "kind": kind}


@dataclass(frozen=True)
class Outcome:
    """How one run ended, or that it waits. Its texts may hold secrets until `redacted()`; `body()` shortens them."""

    status: str
    fault_class: str = NONE
    exit_code: int | None = None
    short_message: str = ""
    error_message: str = ""
    tokens: Tokens | None = None
    cost_usd: float | None = None
    num_turns: int | None = None
    session_id: str | None = None
    model: str | None = None
    retry_after_seconds: float | None = None
    # The usage limit because of which the run failed; None for any other end.
    usage_limit: UsageLimit | None = None
    # The counts of the run's tool calls, and the calls themselves, as the API takes them.
    tool_calls: dict[str, int] | None = None
    tool_call_list: list[dict[str, Any]] | None = None
    # The tools of the calls that were refused, in order, by an id of each call.
    denied: dict[str, str] = field(default_factory=dict)
    # The call that waits for a person's decision, as the API takes it; None unless the status is WAITING.
    approval: dict[str, Any] | None = None
    # What the worker saw when it looked, as the API takes it; None if it did not look.
    before: dict[str, Any] | None = None
    # The run's output: any JSON that the API can store; ABSENT if there is no output.
    output: Any = ABSENT

    def redacted(self, redactor: Redactor) -> Outcome:
        return replace(
            self,
            short_message=redactor.redact(self.short_message),
            error_message=redactor.redact(self.error_message),
            session_id=redactor.redact(self.session_id or ""),
            model=redactor.redact(self.model or ""),
            tool_call_list=None
            if self.tool_call_list is None
            else redactor.redact_json(self.tool_call_list),
            denied={key: redactor.redact(tool) for key, tool in self.denied.items()},
            output=ABSENT if self.output is ABSENT else redactor.redact_json(self.output),
        )

    def body(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "status": self.status,
            "faultClass": self.fault_class,
            "exitCode": whole(self.exit_code, LARGEST_EXIT_CODE),
            "shortMessage": _cut(self.short_message, SHORT_MESSAGE_LENGTH),
            "errorMessage": _cut(self.error_message, ERROR_MESSAGE_LENGTH),
            "costUsd": _money(self.cost_usd),
            "numTurns": whole(self.num_turns, LARGEST_EXIT_CODE),
            "sessionId": _cut(self.session_id or "", LABEL_LENGTH),
            "model": _cut(self.model or "", LABEL_LENGTH),
            "retryAfterSeconds": _retry_after(self.retry_after_seconds),
            "usageLimit": self.usage_limit and self.usage_limit.body(),
        }
        if self.tokens is not None:
            fields["inputTokens"] = self.tokens.input
            fields["outputTokens"] = self.tokens.output
            fields["cacheReadTokens"] = self.tokens.cache_read
            fields["cacheCreationTokens"] = self.tokens.cache_creation
        fields["toolCalls"], fields["toolCallList"] = self.tool_calls, self.tool_call_list or None
        fields["denials"], fields["approval"] = _denials([*self.denied.values()]), self.approval
        fields["before"] = self.before
        body = {name: value for name, value in fields.items() if value is not None}
        if self.output is not ABSENT:
            body["output"] = self.output
        return body


def storable(value: Any) -> Any:
    """Return JSON with other characters for those that the API can't store. Raises RecursionError if it is too deep."""
    return with_strings(value, lambda text: _UNSTORABLE.sub("\ufffd", text))


def bare(body: dict[str, Any]) -> dict[str, Any]:
    """Return status and fault of an outcome that the API refused. Without its call a run fails: it can't wait."""
    if body.get("status") == WAITING:
        return {"status": FAILED, "faultClass": CLIENT}
    return {name: body[name] for name in ("status", "faultClass") if name in body}


def iso(moment: float, precision: str = "milliseconds") -> str:
    text = datetime.fromtimestamp(moment, tz=timezone.utc).isoformat(timespec=precision)
    return text.replace("+00:00", "Z")


def _money(value: float | None) -> str | None:
    amount = number(value)
    if amount is None or amount > LARGEST_COST_USD:
        return None
    return format(round(Decimal(repr(amount)), COST_DECIMALS), "f")


def _retry_after(value: float | None) -> int | None:
    seconds = number(value)
    return None if seconds is None else min(math.ceil(seconds), LONGEST_RETRY_AFTER_SECONDS)


def _denials(tools: list[str]) -> dict[str, Any] | None:
    """Return how many calls were refused, and the first names of their tools; None if there were none."""
    names = dict.fromkeys(_cut(tool, TOOL_NAME_LENGTH) or "(unnamed)" for tool in tools)
    return {"total": len(tools), "tools": list(names)[:MOST_DENIED_NAMES]} if tools else None


def _cut(text: str, length: int) -> str | None:
    return shortened(_UNSTORABLE.sub("\ufffd", text).strip(), length) or None


# The names of the four numbers of Tokens, in the `usage` of the model's API and in claude's `modelUsage`.
_OF_THE_API = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_OF_CLAUDE = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")


@dataclass(frozen=True)
class Tokens:
    """How many tokens of a model one message, several messages, or a whole run used."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_creation: int = 0

    @classmethod
    def read(cls, usage: Any, names: tuple[str, ...] = _OF_THE_API) -> Tokens | None:
        """Read a `usage` object of the model's API. A number that is missing or not a whole one counts as 0. Return
        None if it is no object.
        """
        if not isinstance(usage, dict):
            return None
        return cls(*(whole(usage.get(name)) or 0 for name in names))

    @classmethod
    def of_models(cls, usage: dict[str, Any]) -> Tokens:
        """Add up the entries of claude's `modelUsage`, one for each model."""
        return sum((cls.read(each, _OF_CLAUDE) or cls() for each in usage.values()), cls())

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(*map(sum, zip(astuple(self), astuple(other))))


LARGEST_BYTES = 64 * 1024
# How many seconds of processor time the process that checks an output may use, because a schema may have patterns and
# references that take for ever. On a busy machine it may take longer, up to LONGEST_SECONDS.
CPU_SECONDS, LONGEST_SECONDS = 5, 30.0
LONGEST_SENTENCE, LONGEST_POINTER = 200, 80
# JavaScript's largest number has 309 digits. The API refuses whole numbers that are larger.
LONGEST_NUMBER = 309

CHECKER = "pipedai_worker.running.schema_check"


def settle(success: Outcome, schema: Any, output: Any, redactor: Redactor) -> Outcome:
    """Return the outcome of a program that succeeded with this output, or with ABSENT. If the trigger has a schema, a
    missing, too large or wrong output is a failure of the client; else too large an output is left out.
    """
    if output is ABSENT:
        if schema is None:
            return success
        return _failed(success, "There is no output, although the trigger has an output schema.")
    try:
        output = storable(output)
        size = size_of(output)
    except RecursionError:
        size = None
    if size is None or size > LARGEST_BYTES:
        if schema is None:
            return success
        return _failed(
            success,
            "The output is not JSON."
            if size is None
            else f"The output has {size} bytes of JSON, more than {LARGEST_BYTES}.",
        )
    if schema is not None:
        fault = check(schema, output, redactor)
        if fault is not None:
            return _failed(success, fault.sentence, fault.fault_class)
    return replace(success, output=output)


def check(schema: Any, output: Any, redactor: Redactor) -> Fault | None:
    """Check an output in a process of its own. Return None if it fits, else what is wrong, without secrets."""
    try:
        checked = subprocess.run(
            [sys.executable, "-m", CHECKER, str(CPU_SECONDS)],
            input=json.dumps({"schema": schema, "output": output}).encode(),
            capture_output=True,
            timeout=LONGEST_SECONDS,
            check=False,
            # The process can import the same modules as this one, but gets no other variable.
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
        )
        answer = json.loads(checked.stdout)
    except subprocess.TimeoutExpired:
        return Fault(CLIENT, "The output could not be checked against its schema in time.")
    except OSError as error:
        return Fault(INFRA, f"The output could not be checked: {error.strerror}.")
    except ValueError:
        if checked.returncode == -signal.SIGKILL:
            # Linux kills a program by SIGKILL when the machine has no memory left.
            return Fault(INFRA, "The output could not be checked: the checker was killed.")
        if checked.returncode < 0:
            # SIGXCPU ends the checker when its processor time is used up, SIGSEGV when it recurses without end.
            return Fault(CLIENT, "The output could not be checked against its schema in time.")
        return Fault(INFRA, "The output could not be checked: the checker failed.")
    if answer.get("missing"):
        return Fault(INFRA, "The worker lacks the package jsonschema to check the output.")
    sentence = answer.get("sentence")
    if "misfit" in answer:
        pointer, misfit = redactor.redact(answer["pointer"]), redactor.redact(answer["misfit"])
        where = f"At {shortened(pointer, LONGEST_POINTER)}" if pointer else "As a whole"
        sentence = f"{where}, the output does not fit its schema: {misfit}."
    return Fault(CLIENT, shortened(str(sentence), LONGEST_SENTENCE)) if sentence else None


def size_of(output: Any) -> int | None:
    """Return how many bytes the JSON has, written compactly in UTF-8; None if the API can't store it."""
    try:
        text = json.dumps(output, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        json.loads(text, parse_int=_held_int)
    except (ValueError, RecursionError, TypeError):
        return None
    return len(text.encode())


def _held_int(literal: str) -> int:
    """Raise ValueError for a number beyond JavaScript's largest, which the API refuses. No caller needs the value."""
    if len(literal) > LONGEST_NUMBER or math.isinf(float(literal)):
        raise ValueError
    return 0


def _failed(success: Outcome, sentence: str, fault_class: str = CLIENT) -> Outcome:
    return replace(
        success,
        status=FAILED,
        fault_class=fault_class,
        short_message=sentence,
        error_message=f"{sentence}\n{success.short_message}",
    )
