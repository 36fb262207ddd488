"""A run's MCP configuration, and the refusal of one that would read this machine's secrets."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from pipedai_worker.assigned import AssignedRun

# What the run's one server is called; its tools are then named `mcp__trigger__…`.
SERVER_NAME = "trigger"
# Claude expands `${NAME}` in URLs and headers from its environment, which is this machine's.
EXPANSION = "${"


def refusal(run: AssignedRun) -> str | None:
    """Why this run's MCP server must not be configured, or None. The sentence holds no secret."""
    if EXPANSION in run.mcp_url:
        return "The MCP URL contains `${`, which would expand to secrets of the worker's machine."
    if any(EXPANSION in name or EXPANSION in value for name, value in run.mcp_headers.items()):
        return "An MCP header contains `${`, which would expand to secrets of the worker's machine."
    return None


def configuration(run: AssignedRun) -> bytes:
    """The JSON file for `--mcp-config`. It holds the headers in plaintext."""
    # By convention the older transport's endpoints end in /sse; the others speak streamable HTTP.
    transport = "sse" if urlsplit(run.mcp_url).path.rstrip("/").endswith("/sse") else "http"
    server: dict[str, object] = {"type": transport, "url": run.mcp_url}
    if run.mcp_headers:
        server["headers"] = dict(run.mcp_headers)
    return json.dumps({"mcpServers": {SERVER_NAME: server}}).encode()
