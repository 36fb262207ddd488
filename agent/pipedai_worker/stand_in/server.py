"""Connects the stand-in to the run's MCP server and calls its tools, as the events then tell."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from pipedai_worker.mcp import SERVER_NAME, TOOL_PREFIX
from pipedai_worker.stand_in.conversation import Conversation
from pipedai_worker.stand_in.mcp_client import McpClient, McpError

# While a tool is silent, claude says so again and again after so many seconds.
PROGRESS_SECONDS = 30
# A stand-in that may do without its server waits no longer than this for it.
OPTIONAL_SECONDS = 5.0


class Server:
    """The server that the configuration names; there may be none.

    `optional` says that the run may do without it: then nothing is told of a server that can't be reached.
    """

    def __init__(self, configuration: Mapping[str, Any] | None, *, optional: bool) -> None:
        self._optional = optional
        self._client: McpClient | None = None
        self.status: str | None = None
        if configuration is not None:
            entry = configuration["mcpServers"].get(SERVER_NAME) or {}
            self._client = McpClient(entry, OPTIONAL_SECONDS) if optional else McpClient(entry)

    def connect(self, status: str | None = None) -> None:
        """Connect to the server; or, with a `status`, only say that of it."""
        if self._client is None:
            return
        if status is not None:
            self.status = status
            return
        try:
            self._client.connect()
        except McpError:
            self._client.tools = []
            self.status = None if self._optional else "failed"
        else:
            self.status = "connected"

    @property
    def told(self) -> dict[str, Any]:
        """What an `init` tells of the server."""
        if self._client is None:
            return {"mcp_servers": []}
        if self.status is None:
            return {}
        server = {"name": SERVER_NAME, "status": self.status, "source": "dynamic"}
        return {"mcp_servers": [server]}

    @property
    def tools(self) -> list[str]:
        """The names of the server's tools, as claude names them."""
        return [TOOL_PREFIX + str(tool.get("name")) for tool in self._tools()]

    def harmless(self) -> str | None:
        """Return the name of a tool that only reads, and that needs no argument; None if there is none."""
        for tool in self._tools():
            reads = (tool.get("annotations") or {}).get("readOnlyHint") is True
            if reads and not (tool.get("inputSchema") or {}).get("required"):
                return str(tool.get("name"))
        return None

    def call(self, talk: Conversation, tool: str, arguments: Mapping[str, Any]) -> _Call:
        """Have the model call a tool. The answer is written by `answer` of what is returned."""
        name = self._client.server_name if self._client else ""
        known = TOOL_PREFIX + tool in self.tools
        names = {"display_name": tool.capitalize(), "server_display_name": name, "tool_name": tool}
        number = talk.call(TOOL_PREFIX + tool, arguments, **(names if known else {}))
        return _Call(talk, number, tool, arguments, self._client if known else None)

    def close(self) -> None:
        """End the session with the server."""
        if self._client is not None:
            self._client.close()

    def _tools(self) -> list[dict[str, Any]]:
        return self._client.tools if self._client else []


class _Call:
    """One call, which the model has asked for."""

    def __init__(
        self,
        talk: Conversation,
        number: str,
        tool: str,
        arguments: Mapping[str, Any],
        client: McpClient | None,
    ) -> None:
        self.number = number
        self._talk = talk
        self._tool = tool
        self._arguments = arguments
        self._client = client

    def answer(self) -> None:
        """Make the call, and write what the server answers."""
        if self._client is None:
            why = f"No such tool available: {TOOL_PREFIX}{self._tool}"
            self._talk.answer(self.number, why, told=f"Error: {why}", how={}, is_error=True)
            return
        try:
            with _Progress(self._talk, self.number, TOOL_PREFIX + self._tool):
                result = self._client.call(self._tool, self._arguments)
        except McpError as error:
            result = {"content": str(error), "isError": True}
        self._write(result)

    def _write(self, result: Mapping[str, Any]) -> None:
        told = {name: result[name] for name in ("_meta", "structuredContent") if name in result}
        content = result.get("content")
        if "structuredContent" in result:
            content = json.dumps(result["structuredContent"], separators=(",", ":"))
        permitted = {"decision": "accept", "source": "config", "reason_type": "rule"}
        how = {"permission_decision": permitted}
        if result.get("isError"):
            text = content if isinstance(content, str) else _text(content)
            told["content"] = f"Error: {text}"
            self._talk.answer(self.number, text, told=told, how=how, is_error=True)
        else:
            told["content"] = content
            self._talk.answer(self.number, content, told=told, how=how)


class _Progress:
    """Says again and again that a call goes on, for the time of the block."""

    def __init__(self, talk: Conversation, number: str, name: str) -> None:
        self._talk = talk
        self._number = number
        self._name = name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        count = 0
        while not self._ended.wait(PROGRESS_SECONDS):
            self._talk.event(
                "tool_progress",
                tool_use_id=f"{self._number}-heartbeat-{count}",
                tool_name=self._name,
                parent_tool_use_id=self._number,
                elapsed_time_seconds=PROGRESS_SECONDS * (count + 1),
                heartbeat=True,
            )
            count += 1


def _text(content: Any) -> str:
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))
