"""Serves the demo's MCP server on the loopback interface: one tool, which tells the time of this machine.

It needs nothing but the standard library, so that the demo works without internet.
"""

import sys
from datetime import datetime
from http.server import ThreadingHTTPServer
from pathlib import Path

# The worker program, whose small MCP server this is, is a package of its own in agent/.
sys.path.append(str(Path(__file__).resolve().parent.parent / "agent"))
from pipedai_worker.stand_in.mcp_server import McpHandler, Tool

TOOL = "local_time"
_HOST = "127.0.0.1"


def url_at(port: int) -> str:
    """Return the server's URL."""
    return f"http://{_HOST}:{port}{McpHandler.served_at}"


class Handler(McpHandler):
    """Answers the requests of MCP clients."""

    tools = {
        TOOL: Tool(
            {
                "name": TOOL,
                "description": "Tell the local time of the machine on which PipedAI was started.",
                "inputSchema": {"type": "object", "properties": {}},
                "annotations": {"readOnlyHint": True},
            },
            lambda _: f"It is {datetime.now().astimezone():%A, %H:%M}.",
        )
    }


def main() -> None:
    """Serve until a signal ends the process. The port is the only argument."""
    with ThreadingHTTPServer((_HOST, int(sys.argv[1])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
