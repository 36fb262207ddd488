"""Lets the stand-in for claude call tools, of the run's MCP server or in the background, and writes their events. It
speaks with the server as claude does, with the standard library alone and without a proxy.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from pipedai_worker.executors.claude_names import CALL_KEY, SERVER_NAME, TOOL_PREFIX
from pipedai_worker.stand_in.conversation import Conversation

PROTOCOL_VERSION = "2025-06-18"
CONNECT_SECONDS = 30.0
MOST_PAGES = 100


class McpError(Exception):
    """The server can't be used, or it answered a request with an error. The text says why."""


class McpClient:
    def __init__(self, server: Mapping[str, Any], connect_seconds: float = CONNECT_SECONDS) -> None:
        self._url = str(server.get("url"))
        self._headers = {str(k): str(v) for k, v in (server.get("headers") or {}).items()}
        self._connect_seconds = connect_seconds
        self._call_seconds = float(server.get("timeout") or 300_000) / 1000
        self._ids = itertools.count(1)
        self.server_name = ""
        self.tools: list[dict[str, Any]] = []

    def connect(self) -> None:
        limit = self._connect_seconds
        client = {"name": "stand-in", "version": "0"}
        offered = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client}
        agreed = self._ask("initialize", offered, limit)
        self.server_name = str((agreed.get("serverInfo") or {}).get("name") or "")
        self._headers["MCP-Protocol-Version"] = str(
            agreed.get("protocolVersion") or PROTOCOL_VERSION
        )
        self._send({"method": "notifications/initialized"}, limit)
        page: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            listed = self._ask("tools/list", page, limit)
            self.tools += [tool for tool in listed.get("tools") or () if isinstance(tool, dict)]
            if not listed.get("nextCursor"):
                return
            page = {"cursor": listed["nextCursor"]}

    def call(self, tool: str, arguments: Mapping[str, Any], number: str = "") -> dict[str, Any]:
        """Call a tool and return its result: `content` and `isError`, perhaps more. Raises McpError."""
        asked = {"name": tool, "arguments": dict(arguments), "_meta": {CALL_KEY: number}}
        return self._ask("tools/call", asked, self._call_seconds)

    def close(self) -> None:
        if "Mcp-Session-Id" in self._headers:
            with contextlib.suppress(McpError):
                self._request("DELETE", None, 2.0)

    def _ask(self, method: str, params: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        for answer in self._send(message, seconds):
            if answer.get("id") != number:
                continue
            if "error" in answer:
                raise McpError(f"{method}: {(answer['error'] or {}).get('message')}")
            result = answer.get("result")
            return result if isinstance(result, dict) else {}
        raise McpError(f"{method}: there was no answer")

    def _send(self, message: Mapping[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        """Send a message at once, and return the messages that answer it as they come."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        answer = self._request("POST", body, seconds)
        session = answer.headers.get("Mcp-Session-Id")
        if session:
            self._headers["Mcp-Session-Id"] = session
        if answer.headers.get_content_type() == "text/event-stream":
            return _events(answer)
        with _troubles():
            text = answer.read()
            return iter([json.loads(text)] if text.strip() else [])

    def _request(self, method: str, body: bytes | None, seconds: float) -> http.client.HTTPResponse:
        headers = {
            "Accept": "application/json, text/event-stream",
            "Connection": "close",
            **self._headers,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        with _troubles():
            url = urlsplit(self._url)
            if url.scheme not in {"http", "https"} or not url.hostname:
                raise ValueError(f"not a URL of HTTP: {self._url}")
            https = url.scheme == "https"
            connect = http.client.HTTPSConnection if https else http.client.HTTPConnection
            connection = connect(url.hostname, url.port, timeout=seconds)
            target = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
            try:
                connection.request(method, target, body, headers)
                answer = connection.getresponse()
            finally:
                # The socket is closed too, because the open answer would keep the connection open.
                if connection.sock is not None:
                    connection.sock.close()
            if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                answer.close()
                raise McpError(f"HTTP Error {answer.status}: {answer.reason}")
            return answer


@contextlib.contextmanager
def _troubles() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise McpError(str(error)) from None


def _events(answer: Any) -> Iterator[dict[str, Any]]:
    """Yield the messages of a stream of events as they come."""
    data: list[str] = []
    with _troubles(), answer:
        for line in answer:
            name, _, value = line.decode().rstrip("\r\n").partition(":")
            if name == "data":
                data.append(value[value.startswith(" ") :])
            elif not name and data:
                message = json.loads("\n".join(data))
                data = []
                if isinstance(message, dict):
                    yield message


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
        entry = (configuration or {"mcpServers": {}})["mcpServers"].get(SERVER_NAME)
        if entry is not None:
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

    def call(self, talk: Conversation, tool: str, arguments: Mapping[str, Any]) -> str:
        """Write that the model calls a tool. Return the call's id; `answer` makes the call."""
        names = {}
        if self._client is not None and self._knows(tool):
            names = {
                "display_name": tool.capitalize(),
                "server_display_name": self._client.server_name,
                "tool_name": tool,
            }
        return talk.call(TOOL_PREFIX + tool, arguments, **names)

    def answer(
        self, talk: Conversation, number: str, tool: str, arguments: Mapping[str, Any]
    ) -> None:
        """Make the call with this id, and write its result."""
        name = TOOL_PREFIX + tool
        if self._client is None or not self._knows(tool):
            why = f"No such tool available: {name}"
            talk.answer(number, why, returned=f"Error: {why}", how={}, is_error=True)
            return
        try:
            with _progress(talk, number, name):
                result = self._client.call(tool, arguments, number)
        except McpError as error:
            result = {"content": str(error), "isError": True}
        returned: dict[str, Any] = {
            key: result[key] for key in ("_meta", "structuredContent") if key in result
        }
        content = result.get("content")
        if "structuredContent" in result:
            content = json.dumps(result["structuredContent"], separators=(",", ":"))
        permitted = {"decision": "accept", "source": "config", "reason_type": "rule"}
        how = {"permission_decision": permitted}
        if result.get("isError"):
            text = content if isinstance(content, str) else _text(content)
            returned["content"] = f"Error: {text}"
            talk.answer(number, text, returned=returned, how=how, is_error=True)
        else:
            returned["content"] = content
            talk.answer(number, content, returned=returned, how=how)

    def _knows(self, tool: str) -> bool:
        return TOOL_PREFIX + tool in self.tools

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _tools(self) -> list[dict[str, Any]]:
        return self._client.tools if self._client else []


def ask_hook(settings: Mapping[str, Any], name: str, **call: Any) -> tuple[str, str]:
    """Return what the PreToolUse hook in claude's settings decides on a call of a tool, and why. Both are empty if it
    fails, says nothing or is missing.
    """
    text = json.dumps({"hook_event_name": "PreToolUse", "tool_name": name, **call})
    for entry in (settings.get("hooks") or {}).get("PreToolUse") or []:
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
