"""Configures claude for a run: its only MCP server, what it must leave alone, and how long it may wait."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipedai_worker.polling.assigned import Approvals

# The name of the run's only MCP server; claude then names its tools `mcp__trigger__…`.
SERVER_NAME = "trigger"
TOOL_PREFIX = f"mcp__{SERVER_NAME}__"


def configuration(url: str, timeout_seconds: float) -> bytes:
    """Return the text for `--mcp-config`. `timeout_seconds` is how long a tool call may take."""
    server = {
        "type": "http",
        "url": url,
        # Claude then tells the model about the tools from the beginning, and not only when it searches for tools.
        "alwaysLoad": True,
        # Without this limit claude would end a tool call when nothing came from it for 300 s.
        "timeout": round(timeout_seconds * 1000),
    }
    return json.dumps({"mcpServers": {SERVER_NAME: server}}).encode()


# With these variables claude reads no file that the prompt mentions, keeps no memory from run to run, and calls no
# service but the model's API and the run's MCP server.
VARIABLES = {
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    # Older versions of claude do not know the variable above. This one, too, keeps them from reading mentioned files.
    # It also loads all tools at once, which `alwaysLoad` does anyway.
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
# Of claude's own tools, a run with gated calls has only these: none runs a command, writes a file or reaches the web.
# Grep is not among them, as that of older versions finds text in files that claude must not read.
HOST_TOOLS = "Read,Glob,Agent"
# The gateway may have to wait for the disk before it answers the hook.
HOOK_SECONDS = 60
HOOK = Path(__file__).with_name("hook.py")


def options(approvals: Approvals | None, mcp_config: Path, own: Sequence[Path] = ()) -> list[str]:
    """Return the options that limit what claude can do in a run. With `approvals`, claude asks the gateway about each
    call of the run's MCP server by a hook, which reads the gateway's URL from `mcp_config`. Claude's tools for files
    refuse that file and `own`, the worker's files and directories, whatever the account's own settings allow.
    """
    settings: dict[str, Any] = {
        "crossSessionInbound": "refuse",
        "permissions": {"deny": _denied([mcp_config, *own])},
    }
    if approvals is not None:
        arguments = [str(HOOK), str(mcp_config), str(HOOK_SECONDS)]
        command = shlex.join([sys.executable, "-I", "-S", *arguments])
        hook = {"type": "command", "command": command, "timeout": HOOK_SECONDS}
        settings["hooks"] = {"PreToolUse": [{"matcher": f"{TOOL_PREFIX}.*", "hooks": [hook]}]}
    limited = approvals is not None and not approvals.allow_host_tools
    return [
        # `--disallowedTools` forbids these tools, and the setting after them refuses messages. Otherwise runs that are
        # executed at the same time could find each other and send each other messages.
        "--disallowedTools",
        "SendMessage",
        "ListAgents",
        "--settings",
        json.dumps(settings),
        # Claude reads the settings of the user's account, but none of the run's directory or those above it.
        "--setting-sources",
        "user",
        *(["--tools", HOST_TOOLS] if limited else []),
    ]


def _denied(paths: Sequence[Path]) -> list[str]:
    """Return the rules by which claude neither reads nor changes these paths and what is below them."""
    every = dict.fromkeys(each for path in paths for each in (path.absolute(), path.resolve()))
    return [f"{tool}({_pattern(path)})" for path in every for tool in ("Read", "Edit")]


def _pattern(path: Path) -> str:
    # Two slashes begin an absolute path. In the parentheses of a rule, claude takes it for a pattern of gitignore.
    return re.sub(r"[()\\]", r"\\\g<0>", re.sub(r"[][*?!#\\]", r"\\\g<0>", f"/{path}"))


# Claude then writes no file from which a session can be resumed.
FORGET_SESSION = "--no-session-persistence"


# After a failed call of the model's API, claude waits half a second, then twice as long each time, up to 32 s.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 32.0
FEWEST_RETRIES, MOST_RETRIES = 2, 10
SHORTEST_CALL_SECONDS, LONGEST_CALL_SECONDS = 15.0, 360.0
# The bounds for the pause that claude accepts inside an answer of the model's API, which pauses a few seconds at most.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 180.0
# How long claude may take to connect to the worker's gateway on this machine, which answers at once.
CONNECT_MILLISECONDS = 30_000


def variables(timeout_seconds: float) -> dict[str, str]:
    """Return the variables that limit how long claude waits. A quarter of the run's time is for its pauses between
    attempts, and another for an attempt without an answer, so that claude reports a failing API in time.
    """
    share = timeout_seconds / 4
    call = min(max(share, SHORTEST_CALL_SECONDS), LONGEST_CALL_SECONDS)
    pause = min(max(share, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    return {
        "CLAUDE_CODE_MAX_RETRIES": str(_retries(share)),
        "API_TIMEOUT_MS": str(round(call * 1000)),
        # API_TIMEOUT_MS limits the wait until an answer begins. The variables below limit each pause inside an answer,
        # after which claude calls again. Claude heeds CLAUDE_ENABLE_BYTE_WATCHDOG only with Anthropic's own API. With
        # other APIs its limit for a pause is 5 minutes.
        "CLAUDE_ENABLE_BYTE_WATCHDOG": "1",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(round(pause * 1000)),
        "CLAUDE_ENABLE_STREAM_WATCHDOG": "1",
        # With 0, claude begins to work only when it has connected to the MCP server, or when connecting has failed.
        "MCP_CONNECTION_NONBLOCKING": "0",
        "MCP_TIMEOUT": str(CONNECT_MILLISECONDS),
        "MCP_CONNECT_TIMEOUT_MS": str(CONNECT_MILLISECONDS),
        # A call of a tool may take as long as the run.
        "MCP_TOOL_TIMEOUT": str(round(timeout_seconds * 1000)),
    }


def _retries(seconds: float) -> int:
    waited, wait = 0.0, FIRST_WAIT_SECONDS
    for count in range(MOST_RETRIES):
        waited += wait
        if waited > seconds:
            return max(count, FEWEST_RETRIES)
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)
    return MOST_RETRIES
