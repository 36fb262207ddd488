"""Lets the stand-in for claude call tools, of the run's MCP server or in the background, and writes their events."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipedai_worker.executors.settings import SERVER_NAME, TOOL_PREFIX
from pipedai_worker.stand_in.conversation import Conversation
from pipedai_worker.stand_in.mcp_client import McpClient, McpError

# While a tool call goes on, claude writes an event that says so, once in this many seconds.
PROGRESS_SECONDS = 30
# If the run may do without its MCP server, the stand-in waits no longer than this for the server.
OPTIONAL_SECONDS = 5.0


class Server:
    """The MCP server in the stand-in's configuration, if there is one. With `optional`, a run may do without it."""

    def __init__(self, configuration: Mapping[str, Any] | None, *, optional: bool) -> None:
        self._optional = optional
        self._client: McpClient | None = None
        self.status: str | None = None
        if configuration is not None:
            entry = configuration["mcpServers"].get(SERVER_NAME) or {}
            self._client = McpClient(entry, OPTIONAL_SECONDS) if optional else McpClient(entry)

    def connect(self, status: str | None = None) -> None:
        """Connect to the MCP server. With `status`, do not connect, and let the events tell this status."""
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
    def in_init(self) -> dict[str, Any]:
        if self._client is None:
            return {"mcp_servers": []}
        if self.status is None:
            return {}
        server = {"name": SERVER_NAME, "status": self.status, "source": "dynamic"}
        return {"mcp_servers": [server]}

    @property
    def tools(self) -> list[str]:
        return [TOOL_PREFIX + str(tool.get("name")) for tool in self._tools()]

    def harmless(self) -> str | None:
        """Return the name of a tool that only reads, and that needs no argument; None if there is none."""
        for tool in self._tools():
            reads = (tool.get("annotations") or {}).get("readOnlyHint") is True
            if reads and not (tool.get("inputSchema") or {}).get("required"):
                return str(tool.get("name"))
        return None

    def call(self, talk: Conversation, tool: str, arguments: Mapping[str, Any]) -> _Call:
        """Write that the model calls a tool. Return the call, whose method `answer` makes it and writes its result."""
        name = self._client.server_name if self._client else ""
        known = TOOL_PREFIX + tool in self.tools
        names = {"display_name": tool.capitalize(), "server_display_name": name, "tool_name": tool}
        number = talk.call(TOOL_PREFIX + tool, arguments, **(names if known else {}))
        return _Call(talk, number, tool, arguments, self._client if known else None)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _tools(self) -> list[dict[str, Any]]:
        return self._client.tools if self._client else []


class Hook:
    """The PreToolUse hook in claude's settings, if there is one."""

    def __init__(self, settings: Mapping[str, Any], session_id: str) -> None:
        self._hooks = (settings.get("hooks") or {}).get("PreToolUse") or []
        self._session_id = session_id

    def ask(self, name: str, number: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
        """Return what the hook decides on a call, and why. Both are empty if it fails, says nothing or is missing."""
        asked = {"session_id": self._session_id, "hook_event_name": "PreToolUse", "tool_name": name}
        text = json.dumps({**asked, "tool_use_id": number, "tool_input": arguments})
        for entry in self._hooks:
            for hook in entry["hooks"] if re.fullmatch(entry["matcher"], name) else ():
                with contextlib.suppress(ValueError, KeyError):
                    told = json.loads(_output(hook["command"], text))["hookSpecificOutput"]
                    return told["permissionDecision"], told.get("permissionDecisionReason", "")
        return "", ""


def _output(command: str, text: str) -> str:
    import subprocess  # imported here, because few runs need it and importing takes time

    argv = ["/bin/sh", "-c", command]
    done = subprocess.run(argv, input=text, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


@dataclass
class _Call:
    _talk: Conversation
    number: str
    _tool: str
    _arguments: Mapping[str, Any]
    _client: McpClient | None

    def answer(self) -> None:
        if self._client is None:
            why = f"No such tool available: {TOOL_PREFIX}{self._tool}"
            self._talk.answer(self.number, why, returned=f"Error: {why}", how={}, is_error=True)
            return
        try:
            with _progress(self._talk, self.number, TOOL_PREFIX + self._tool):
                result = self._client.call(self._tool, self._arguments)
        except McpError as error:
            result = {"content": str(error), "isError": True}
        self._write(result)

    def _write(self, result: Mapping[str, Any]) -> None:
        returned = {name: result[name] for name in ("_meta", "structuredContent") if name in result}
        content = result.get("content")
        if "structuredContent" in result:
            content = json.dumps(result["structuredContent"], separators=(",", ":"))
        permitted = {"decision": "accept", "source": "config", "reason_type": "rule"}
        how = {"permission_decision": permitted}
        if result.get("isError"):
            text = content if isinstance(content, str) else _text(content)
            returned["content"] = f"Error: {text}"
            self._talk.answer(self.number, text, returned=returned, how=how, is_error=True)
        else:
            returned["content"] = content
            self._talk.answer(self.number, content, returned=returned, how=how)


@contextlib.contextmanager
def _progress(talk: Conversation, number: str, name: str) -> Iterator[None]:
    """Write an event every 30 s, which says that a tool call is still going on."""
    ended = threading.Event()

    def tell() -> None:
        count = 0
        while not ended.wait(PROGRESS_SECONDS):
            talk.event(
                "tool_progress",
                tool_use_id=f"{number}-heartbeat-{count}",
                tool_name=name,
                parent_tool_use_id=number,
                elapsed_time_seconds=PROGRESS_SECONDS * (count + 1),
                heartbeat=True,
            )
            count += 1

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _text(content: Any) -> str:
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))


_DESCRIPTION = "Work in the background"


class BackgroundTask:
    """One shell command in the background, which the model has started."""

    def __init__(self, talk: Conversation, seconds: float) -> None:
        """Write the events by which the model starts the command and claude says that the command runs."""
        self._talk = talk
        self._seconds = seconds
        self._task = {"task_id": uuid.uuid4().hex[:9], "run_id": uuid.uuid4().hex[:18]}
        arguments = {
            "command": f"sleep {seconds:g}",
            "description": _DESCRIPTION,
            "run_in_background": True,
        }
        self._call = talk.call("Bash", arguments)
        named = {"task_type": "local_bash", "description": _DESCRIPTION}
        talk.system("background_tasks_changed", tasks=[{**self._task, **named}])
        started = {**self._task, **named, "tool_use_id": self._call}
        talk.system("task_started", **started, is_backgrounded=True)
        returned = {
            **dict.fromkeys(("stdout", "stderr"), ""),
            **dict.fromkeys(("interrupted", "isImage", "noOutputExpected"), False),
            "backgroundTaskId": self._task["task_id"],
        }
        permitted = {"decision": "accept", "source": "user_permanent", "reason_type": "rule"}
        text = f"Command running in background with ID: {self._task['task_id']}."
        how = {"permission_decision": permitted}
        talk.answer(self._call, text, returned=returned, how=how, is_error=False)

    def end(self) -> dict[str, object]:
        """Wait until the command ends, and write the events about it. Return the field `origin` of the next result."""
        time.sleep(self._seconds)
        patch = {"status": "completed", "end_time": round(time.time() * 1000)}
        self._talk.system("task_updated", **self._task, patch=patch)
        self._talk.system(
            "task_notification",
            **self._task,
            tool_use_id=self._call,
            status="completed",
            output_file="",
            summary=f'Background command "{_DESCRIPTION}" completed (exit code 0)',
        )
        self._talk.system("background_tasks_changed", tasks=[])
        run_id = self._task["run_id"]
        return {"kind": "task-notification", "producer": "session-task", "runId": run_id}
