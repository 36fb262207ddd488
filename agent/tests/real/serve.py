"""Serves the scripted Messages API and the real MCP server until Ctrl-C, for a person who tries claude without paying.

    PYTHONPATH=.:agent .venv/bin/python -m tests.real.serve

It prints the variables for a worker and the values for a trigger. The model behind it calls the server's tool `echo`
once, gives an output if there is an output schema, and then says that it is done.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from bin import claude

from .mcp_server import mcp_server
from .messages_api import Request, messages_api
from .steps import Step, mcp, output, say

_ECHO, _OUTPUT = "mcp__trigger__echo", "StructuredOutput"
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
    if claude.mcp_python() is None:
        sys.exit("The MCP server is not installed here: run bin/setup --claude.")
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
    called = {block.get("name") for block in _blocks(request.content)}
    if _ECHO in request.tools and _ECHO not in called:
        return mcp("echo", text="Hello from the scripted model.")
    schema = _schema(request.content)
    if schema is not None and _OUTPUT not in called:
        return output(sample(schema))
    return say("It is done.")


def sample(schema: Any) -> Any:
    """Return a value for a simple JSON Schema: of its type, with all of its properties."""
    schema = schema if isinstance(schema, dict) else {}
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: sample(each) for name, each in (schema.get("properties") or {}).items()}
    simple = {"array": [], "string": "scripted", "integer": 1, "number": 1, "boolean": True}
    return simple.get(kind)


def _blocks(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        block
        for message in content.get("messages") or ()
        for block in (message["content"] if isinstance(message["content"], list) else ())
    ]


def _schema(content: dict[str, Any]) -> Any:
    found = [tool for tool in content.get("tools") or () if tool.get("name") == _OUTPUT]
    return found[0].get("input_schema") if found else None


if __name__ == "__main__":
    main()
