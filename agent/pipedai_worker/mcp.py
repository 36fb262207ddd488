"""Makes a run's MCP configuration, which names the worker's gateway as the only MCP server."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

# The name of the run's only MCP server; claude then names its tools `mcp__trigger__…`.
SERVER_NAME = "trigger"
TOOL_PREFIX = f"mcp__{SERVER_NAME}__"


def configuration(url: str, timeout_seconds: float) -> bytes:
    """Return the text of the JSON file for claude's option `--mcp-config`.

    `timeout_seconds` is how long a tool call may take.
    """
    # By convention the URLs of the older transport (SSE) end in /sse; others speak streamable HTTP.
    transport = "sse" if urlsplit(url).path.rstrip("/").endswith("/sse") else "http"
    server = {
        "type": transport,
        "url": url,
        # Claude then tells the model about the tools from the beginning, and not only when the model searches for
        # tools.
        "alwaysLoad": True,
        # Without this limit claude would end a tool call when nothing came from it for 300 s.
        "timeout": round(timeout_seconds * 1000),
    }
    return json.dumps({"mcpServers": {SERVER_NAME: server}}).encode()
