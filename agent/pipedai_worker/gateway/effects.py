"""Knows what a call of each tool may change, from the server's own annotations of its tools (SPEC §18)."""

from __future__ import annotations

from typing import Any

from pipedai_worker.gateway.limits import MOST_TOOLS
from pipedai_worker.tool_calls import IDEMPOTENT, LONGEST_TOOL_NAME, NO_EFFECT, POSSIBLE


class Effects:
    """What calls of one MCP server's tools may change.

    If several answers to `tools/list` name a tool, the last one counts.
    """

    def __init__(self) -> None:
        self._by_tool: dict[str, str] = {}

    def learn(self, result: Any) -> None:
        """Learn the effects of tools from the result of a `tools/list` request. Parts of a wrong form are ignored."""
        tools = result.get("tools") if isinstance(result, dict) else None
        for tool in tools if isinstance(tools, list) else ():
            name = tool.get("name") if isinstance(tool, dict) else None
            if not isinstance(name, str) or len(name) > LONGEST_TOOL_NAME:
                continue
            if name in self._by_tool or len(self._by_tool) < MOST_TOOLS:
                self._by_tool[name] = _annotated(tool)

    def of(self, tool: str) -> str:
        """Return the effect of a tool. A tool that no list has named may have any effect, so it is POSSIBLE."""
        return self._by_tool.get(tool, POSSIBLE)


def _annotated(tool: dict[str, Any]) -> str:
    annotations = tool.get("annotations")
    if not isinstance(annotations, dict):
        return POSSIBLE
    if annotations.get("readOnlyHint") is True:
        return NO_EFFECT
    return IDEMPOTENT if annotations.get("idempotentHint") is True else POSSIBLE
