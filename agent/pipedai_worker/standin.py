#!/usr/bin/env python3
"""A stand-in for `claude -p --output-format stream-json` that plays what it is told to, at no cost.

It asks no model, but it connects to the MCP server of its configuration, and can call its tools.
Lines of the prompt that begin with `standin:` are carried out in order; then the run succeeds,
unless one of them ended it otherwise. If the session is resumed, it goes on after the last line that it
has carried out or begun. Without any such line it calls a tool that only reads and
needs no argument, if the server has one, and gives an output if a schema asks for one. The lines:

  standin: say TEXT            a message, before the result
  standin: think TEXT          a thought of the model
  standin: warn TEXT           a line on stderr
  standin: call TOOL [JSON]    call a tool of the MCP server with these arguments
  standin: call-unhooked TOOL [JSON]  the same, without asking the PreToolUse hook
  standin: deny                call a tool that nobody permits
  standin: retry STATUS [N]    the model's API fails N times (1) with this status, then answers
  standin: fallback [MODEL]    go on with another model
  standin: server STATUS       say this of the MCP server at the start, and do not connect to it
  standin: sleep SECONDS       work for a while, in silence
  standin: wait-for FILE       the same, until there is such a file
  standin: note FILE           append this process's id to a file
  standin: noise               lines that are not JSON, and an event nobody knows
  standin: big-line MEGABYTES  one event of that size
  standin: flood MEGABYTES     so much in messages of 8 KB
  standin: show-mcp [FILE]     tell the MCP configuration, or another file: result and stderr
  standin: ignore-term         do not end at SIGINT and SIGTERM
  standin: leave-child         start a program that would outlive this one, in a session of its own

  standin: success [TEXT]      the result, with this text
  standin: output JSON         the result, with this structured output
  standin: big-result MEGABYTES  a result of that size
  standin: two-turns [SECONDS]  two results, the second from work in the background
  standin: linger              the result, and then no end
  standin: max-turns           the result error_max_turns
  standin: max-budget          the result error_max_budget_usd
  standin: execution-error     the result error_during_execution
  standin: api-error STATUS    the model's API answers with this status; `cut`: with none
  standin: auth-error          the machine is not logged in
  standin: rate-limit [SECONDS]  the usage limit is reached, and lifted in so many seconds
  standin: crash [CODE]        exit without a result
  standin: no-result           exit 0 without a result
  standin: hang                say nothing more, and do not end

Only the standard library is used, so that it can be run by its path with any Python 3.9 or later.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import sys
import uuid
from pathlib import Path
from typing import Any

# A program that is started by its path does not know where its package is. These lines tell Python the directory.
if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipedai_worker.stand_in.conversation import Conversation, StoredSession
from pipedai_worker.stand_in.lines import Player
from pipedai_worker.stand_in.tools import Hook, Server

VERSION = "0.0.0 (PipedAI stand-in for Claude Code)"
DEFAULT_MODEL = "stand-in-1"


def main() -> int:
    """Parse those of claude's options that a worker uses, and carry out the prompt from stdin in claude's place."""
    # A process that ends need not look for garbage first, which would take a fifth of a short conversation.
    atexit.register(gc.freeze)
    parser = argparse.ArgumentParser(
        prog="standin",
        description=__doc__,
        # With a fixed width argparse need not look up the terminal's, for which it would import much.
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100),
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("-p", "--print", action="store_true", required=True)
    parser.add_argument("--output-format", choices=["stream-json"], required=True)
    parser.add_argument("--verbose", action="store_true", required=True)
    parser.add_argument("--mcp-config", type=Path)
    parser.add_argument("--strict-mcp-config", action="store_true")
    parser.add_argument("--allowedTools", "--allowed-tools", nargs="*")
    parser.add_argument("--disallowedTools", "--disallowed-tools", nargs="*")
    parser.add_argument("--settings", type=_settings, default={})
    parser.add_argument("--tools", nargs="*")
    parser.add_argument("--setting-sources")
    parser.add_argument("--no-session-persistence", action="store_true")
    parser.add_argument("--session-id", type=uuid.UUID, default=uuid.uuid4())
    parser.add_argument("--resume", type=uuid.UUID, metavar="SESSION_ID")
    parser.add_argument("--max-budget-usd", type=float)
    parser.add_argument("--json-schema", type=json.loads)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument(
        "--offline",
        action="store_true",
        help="do without an MCP server that can't be reached (claude has no such option)",
    )
    options = parser.parse_args()
    configuration = None
    if options.mcp_config:
        configuration = _private_json(options.mcp_config)
        if configuration is None:
            parser.error("--mcp-config is no JSON object, or others can read it")
    prompt = sys.stdin.buffer.read().decode()
    talk = Conversation(str(options.resume or options.session_id), options.model, VERSION)
    session = StoredSession(talk.session_id, stored=not options.no_session_persistence)
    if options.resume and not session.exists():
        return talk.refuse(f"No conversation found with session ID: {options.resume}")
    if options.resume and not prompt and not session.is_deferred():
        print("Error: No deferred tool marker found in the resumed session.", file=sys.stderr)
        return 1
    server = Server(configuration, optional=options.offline)
    hook = Hook(options.settings, talk.session_id)
    return Player(
        prompt, talk, server, options.mcp_config, options.json_schema, session, hook
    ).play()


def _settings(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text if text.startswith("{") else Path(text).read_text())
    return found


def _private_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    private = isinstance(content.get("mcpServers"), dict) and not path.stat().st_mode & 0o077
    return content if private else None


if __name__ == "__main__":
    sys.exit(main())
