"""Makes a run's MCP configuration, and refuses one that would read this machine's secrets."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from pipedai_worker.assigned import AssignedRun

# The name of the run's only MCP server; claude then names its tools `mcp__trigger__…`.
SERVER_NAME = "trigger"
# Claude replaces `${NAME}` in URLs and headers by a variable of its environment, which may be a secret.
EXPANSION = "${"


def refusal(run: AssignedRun) -> str | None:
    """Return a sentence on why this MCP server must not be configured, or None. It holds no secret."""
    if EXPANSION in run.mcp_url:
        return "The MCP URL contains `${`, which would expand to secrets of the worker's machine."
    if any(EXPANSION in name or EXPANSION in value for name, value in run.mcp_headers.items()):
        return "An MCP header contains `${`, which would expand to secrets of the worker's machine."
    return None


def configuration(run: AssignedRun) -> bytes:
    """Return the text of the JSON file for `--mcp-config`, which holds the headers in plaintext."""
    # By convention the URLs of the older transport (SSE) end in /sse; others speak streamable HTTP.
    transport = "sse" if urlsplit(run.mcp_url).path.rstrip("/").endswith("/sse") else "http"
    server: dict[str, object] = {"type": transport, "url": run.mcp_url}
    if run.mcp_headers:
        server["headers"] = dict(run.mcp_headers)
    return json.dumps({"mcpServers": {SERVER_NAME: server}}).encode()
