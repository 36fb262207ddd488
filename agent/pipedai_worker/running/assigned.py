"""Reads a run, with its rules for approvals, from the API's answer. The repr of a run shows none of its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple
from uuid import UUID

from pipedai_worker.clauses import OPS
from pipedai_worker.running.outcome import ABSENT
from pipedai_worker.values import number, whole

POSSIBLE_EFFECT = "possible_effect"
EVERY_TOOL = "*"
APPROVE, REJECT = "approve", "reject"


@dataclass(frozen=True)
class Rule:
    """Gates calls of `tools`, the exact names that the MCP server gives them, or of all with EVERY_TOOL."""

    tools: frozenset[str]
    # True if only those calls are gated that may have an effect, by the server's own annotation of the tool.
    only_effects: bool

    @classmethod
    def parse(cls, item: Any) -> Rule:
        tools = item["tools"]
        names = frozenset([tools] if isinstance(tools, str) else tools)
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError
        # A value that only a newer API knows gates every call of the tools.
        return cls(names, item["when"] == POSSIBLE_EFFECT)


class GatedCall(NamedTuple):
    """A call that a person must approve. The hashes are SHA-256 of RFC 8785 forms, in hexadecimal digits."""

    tool: str
    arguments_hash: str
    tool_schema_hash: str


@dataclass(frozen=True)
class Decision:
    approval_id: str
    approved: bool
    call: GatedCall
    reason: str = field(repr=False)

    @classmethod
    def parse(cls, item: Any) -> Decision:
        names = ("approvalId", "decision", "tool", "argumentsHash", "toolSchemaHash")
        texts = [item[name] for name in names]
        if not all(isinstance(text, str) for text in texts) or texts[1] not in {APPROVE, REJECT}:
            raise ValueError
        approval_id, decision, *call = texts
        reason = str(item.get("reason") or "")
        return cls(str(UUID(approval_id)), decision == APPROVE, GatedCall(*call), reason)


@dataclass(frozen=True)
class Approvals:
    rules: tuple[Rule, ...]
    # True if claude keeps its own tools that run commands, write files or reach the web.
    allow_host_tools: bool
    # What was decided on the call for which the run has waited; None if it has not waited yet.
    decision: Decision | None

    @classmethod
    def parse(cls, item: Any) -> Approvals | None:
        """Read a run's rules. Raises AttributeError, KeyError, TypeError or ValueError: the run is then not begun."""
        if item is None:
            return None
        decision = item.get("decision")
        return cls(
            tuple(Rule.parse(rule) for rule in item["rules"]),
            item.get("allowHostTools") is True,
            None if decision is None else Decision.parse(decision),
        )


@dataclass(frozen=True)
class Before:
    """The call by which the worker looks for something new before the agent starts."""

    tool: str
    arguments: dict[str, Any] = field(repr=False)
    # The clauses that have to hold for the result; None if it only has to differ from what the last success saw.
    run_if: list[dict[str, Any]] | None
    # The digest of what the trigger's last success saw; None if there is none.
    last_digest: str | None
    # True if the worker is to do no more than look, and to tell what it saw.
    only: bool

    @classmethod
    def parse(cls, item: Any) -> Before | None:
        """Read a run's look. Raises AttributeError, KeyError, TypeError or ValueError: the run is then not begun."""
        if item is None:
            return None
        arguments, run_if = item["arguments"], item["runIf"]
        clauses = None if run_if == "changed" else [dict(clause) for clause in run_if]
        for clause in clauses or ():
            if clause["op"] not in OPS or "value" not in clause:
                raise ValueError
            _text(clause["path"])
        if not isinstance(arguments, dict):
            raise TypeError
        return cls(
            _text(item["tool"]),
            arguments,
            clauses,
            item.get("lastDigest"),
            item.get("lookOnly") is True,
        )


# The API has the same default. It is used for a run whose own limit is missing or is not a number.
DEFAULT_TIMEOUT_SECONDS = 1800.0
# A longer limit counts as this one, since clocks and other programs take no number of seconds beyond some size.
LONGEST_TIMEOUT_SECONDS = 30 * 86_400.0
# The smallest and the largest limit of a run's cost. Written in full, a number beyond could have millions of digits.
SMALLEST_COST_USD, LARGEST_COST_USD = Decimal("1e-9"), Decimal("1e12")


# Values of `recordEvents`.
ALWAYS, FAILURES = "always", "failures"


@dataclass(frozen=True)
class AssignedRun:
    id: str
    trigger_name: str
    prompt: str = field(repr=False)
    # None for a run without tools of an MCP server.
    mcp_url: str | None = field(repr=False)
    mcp_headers: Mapping[str, str] = field(repr=False)
    # When the headers expire, as the API writes times; None if they do not.
    headers_expire_at: object
    model: str | None
    timeout_seconds: float
    payload: Any = field(repr=False)
    attempt: int
    # A JSON Schema that the run's output has to fit; None if none is asked for.
    output_schema: dict[str, Any] | None = field(repr=False, default=None)
    # When the API takes what the program does: ALWAYS, or once a run has ended without success (FAILURES), else never.
    record_events: str = ""
    # True if a later attempt may go on in the session of claude that this run begins (`retryMode` is `resume`).
    may_be_resumed: bool = False
    # The id of the session in which this run is to go on; None if it begins anew.
    resume_session_id: str | None = None
    # The most that the run may cost, in US dollars, as a plain decimal number; None if there is no limit.
    max_cost_usd: str | None = None
    # Which tool calls a person must approve; None if the run's trigger has no such rules.
    approvals: Approvals | None = None
    # What the worker looks at before it starts the agent; None if it starts the agent at once.
    before: Before | None = None
    # An earlier run's output, with the ids of that run and of the trigger's revision that it had; None for none.
    previous: dict[str, Any] | None = field(repr=False, default=None)
    # The result of the look, once the worker has looked; ABSENT before.
    seen: Any = field(repr=False, default=ABSENT)

    @property
    def is_decided(self) -> bool:
        """Tell whether the run has waited for a person, who has decided by now."""
        return self.approvals is not None and self.approvals.decision is not None

    @classmethod
    def parse(cls, item: Any) -> AssignedRun | None:
        try:
            return cls(
                id=str(UUID(item["id"])),
                trigger_name=str(item.get("triggerName") or ""),
                prompt=_text(item["prompt"]),
                mcp_url=None if item["mcpUrl"] is None else _text(item["mcpUrl"]),
                mcp_headers=parse_headers(item.get("mcpHeaders") or {}),
                headers_expire_at=item.get("headersExpireAt"),
                model=_text(item.get("model") or "") or None,
                timeout_seconds=min(
                    number(item.get("timeoutSeconds")) or DEFAULT_TIMEOUT_SECONDS,
                    LONGEST_TIMEOUT_SECONDS,
                ),
                payload=item.get("payload"),
                attempt=whole(item.get("attempt")) or 1,
                output_schema=_object(item.get("outputSchema")),
                record_events=str(item.get("recordEvents")),
                may_be_resumed=item.get("retryMode") == "resume",
                resume_session_id=_text(item.get("resumeSessionId") or "") or None,
                max_cost_usd=_cost(item.get("maxCostUsd")),
                approvals=Approvals.parse(item.get("approvals")),
                before=Before.parse(item.get("before")),
                previous=_object(item.get("previous")),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


def parse_headers(value: Any) -> dict[str, str]:
    """Return the headers in an answer of the API. Raises AttributeError, TypeError or ValueError if they are none."""
    return {_text(name): _text(text) for name, text in value.items()}


def _object(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError
    return value


def _cost(value: Any) -> str | None:
    """Return a limit as a plain decimal number, or None. Raises ValueError for one that can't be read."""
    if value is None:
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError from None
    is_number = amount.is_finite() and not isinstance(value, bool)
    if not is_number or not SMALLEST_COST_USD <= amount <= LARGEST_COST_USD:
        raise ValueError
    return format(amount.normalize(), "f")


def _text(value: Any) -> str:
    """Return a text that UTF-8 can encode. Raises TypeError for no text, ValueError for a lone surrogate."""
    if not isinstance(value, str):
        raise TypeError
    value.encode()
    return value
