"""Serves the scripted Messages API and the real MCP server until Ctrl-C, for a person who tries claude without paying.

    PYTHONPATH=.:agent .venv/bin/python -m tests.real.serve

It prints the variables for a worker and the values for a trigger. The model behind it calls one tool of the run's MCP
server (`echo`, if there is one), gives an output if there is an output schema, and then says that it is done.
"""

from __future__ import annotations

import json
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from pipedai_worker.executors.claude_names import TOOL_PREFIX
from pipedai_worker.stand_in.conversation import sample

from .mcp_server import mcp_server
from .messages_api import Request, messages_api
from .steps import Step, call, output, say

_ECHO, _OUTPUT = f"{TOOL_PREFIX}echo", "StructuredOutput"
_SAID = """\
For the worker, or bin/run --claude:
  export ANTHROPIC_BASE_URL={messages}
  export CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-scripted
For a trigger:
  mcpUrl      {url}
  mcpHeaders  {headers}
Ctrl-C ends it."""


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.create_server(("127.0.0.1", 0)) as listener,
        messages_api(socket.create_server(("127.0.0.1", 0)), next_step) as messages,
        mcp_server(listener, Path(directory)) as server,
    ):
        place = server.place()
        headers = json.dumps(place.headers)
        try:
            print(_SAID.format(messages=messages.url, url=place.url, headers=headers), flush=True)
            signal.pause()
        except KeyboardInterrupt:
            return


def next_step(request: Request) -> Step:
    """Return what the model does next: it calls each of these tools once, if it has them."""
    called = {str(block.get("name")) for block in _blocks(request.content)}
    tools = {str(tool.get("name")): tool for tool in request.content.get("tools") or ()}
    of_server = [name for name in tools if name.startswith(TOOL_PREFIX)]
    if of_server and not called.intersection(of_server):
        name = _ECHO if _ECHO in tools else of_server[0]
        return call(name, **sample(tools[name].get("input_schema")))
    if _OUTPUT in tools and _OUTPUT not in called:
        return output(sample(tools[_OUTPUT].get("input_schema")))
    return say("It is done.")


def _blocks(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        block
        for message in content.get("messages") or ()
        for block in (message["content"] if isinstance(message["content"], list) else ())
    ]


if __name__ == "__main__":
    main()
