"""Reads from a hand-out which tool calls a person must approve, and what was decided on one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

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


@dataclass(frozen=True)
class Decision:
    """What a person decided on one call. The hashes are SHA-256 of RFC 8785 forms, in hexadecimal digits."""

    approval_id: str
    approved: bool
    tool: str
    arguments_hash: str
    tool_schema_hash: str
    reason: str = field(repr=False)

    @classmethod
    def parse(cls, item: Any) -> Decision:
        names = ("approvalId", "decision", "tool", "argumentsHash", "toolSchemaHash")
        texts = [item[name] for name in names]
        if not all(isinstance(text, str) for text in texts) or texts[1] not in {APPROVE, REJECT}:
            raise ValueError
        approval_id, decision, tool, arguments_hash, schema_hash = texts
        return cls(
            *(str(UUID(approval_id)), decision == APPROVE, tool, arguments_hash, schema_hash),
            reason=str(item.get("reason") or ""),
        )


@dataclass(frozen=True)
class Approvals:
    rules: tuple[Rule, ...]
    # True if claude keeps its own tools that run commands, write files or reach the web.
    allow_host_tools: bool
    # What was decided on the call for which the run has waited; None if it has not waited yet.
    decision: Decision | None

    @classmethod
    def parse(cls, item: Any) -> Approvals | None:
        """Raises AttributeError, KeyError, TypeError or ValueError: a run whose rules can't be read is not begun."""
        if item is None:
            return None
        decision = item.get("decision")
        return cls(
            tuple(Rule.parse(rule) for rule in item["rules"]),
            item.get("allowHostTools") is True,
            None if decision is None else Decision.parse(decision),
        )
