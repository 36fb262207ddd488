"""Serves the demo's MCP server, which has one tool. It needs nothing but the standard library."""

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
    return f"http://{_HOST}:{port}{McpHandler.served_at}"


class Handler(McpHandler):
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
    with ThreadingHTTPServer((_HOST, int(sys.argv[1])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
