#!/usr/bin/env python3
"""A stand-in for `claude -p --output-format stream-json` that plays what it is told to, offline.

Lines of the prompt that begin with `standin:` are carried out in order; then the run
succeeds, unless one of them ended it otherwise. The lines:

  standin: say TEXT            a message, before the result
  standin: sleep SECONDS       work for a while, in silence
  standin: wait-for FILE       the same, until there is such a file
  standin: note FILE           append this process's id to a file
  standin: noise               lines that are not JSON, and an event nobody knows
  standin: big-line MEGABYTES  one event of that size
  standin: show-mcp [FILE]     tell the MCP configuration, or another file: result and stderr
  standin: ignore-term         do not end at SIGINT and SIGTERM
  standin: leave-child         start a program that would outlive this one, in a session of its own

  standin: success [TEXT]      the result, with this text
  standin: output JSON         the result, with this structured output
  standin: big-result MEGABYTES  a result of that size
  standin: two-turns           two results, the second from work in the background
  standin: linger              the result, and then no end
  standin: max-turns           the result error_max_turns
  standin: max-budget          the result error_max_budget_usd
  standin: execution-error     the result error_during_execution
  standin: api-error STATUS    the model's API answers with this status
  standin: auth-error          the machine is not logged in
  standin: rate-limit [SECONDS]  the usage limit is reached, and lifted in so many seconds
  standin: crash [CODE]        exit without a result
  standin: no-result           exit 0 without a result
  standin: hang                say nothing more, and do not end

Only the standard library is used, so that it can be run by its path with any Python 3.9 or later.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

VERSION = "0.0.0 (PipedAI stand-in for Claude Code)"
MARK = "standin:"
DEFAULT_MODEL = "stand-in-1"
COST_USD = 0.0123
FOREVER = 10**6
USAGE = {
    "input_tokens": 12,
    "output_tokens": 34,
    "cache_read_input_tokens": 56,
    "cache_creation_input_tokens": 78,
}

MODEL_USAGE = {
    "inputTokens": 12,
    "outputTokens": 34,
    "cacheReadInputTokens": 56,
    "cacheCreationInputTokens": 78,
}


class Session:
    """One conversation: writes its events to stdout."""

    def __init__(self, prompt: str, model: str, mcp_config: Path | None, session_id: str) -> None:
        self.prompt = prompt
        self.session_id = session_id
        self._model = model
        self._mcp_config = mcp_config
        self._shown = ""
        self._messages = 0
        self._cost = 0.0

    def play(self) -> int:
        """Carry out the prompt and return the exit code. SIGINT ends it with a result."""
        try:
            return self._play()
        except KeyboardInterrupt:
            usage = {name: number * self._messages for name, number in MODEL_USAGE.items()}
            self.result(
                "error_during_execution",
                is_error=True,
                terminal_reason="aborted_streaming",
                modelUsage={self._model: usage},
            )
            return 0

    def _play(self) -> int:
        servers = [{"name": "trigger", "status": "connected"}] if self._mcp_config else []
        self.event("system", subtype="init", model=self._model, tools=[], mcp_servers=servers)
        for line in self.prompt.splitlines():
            if line.startswith(MARK):
                name, _, argument = line[len(MARK) :].strip().partition(" ")
                code = self.step(name, argument.strip())
                if code is not None:
                    return code
        return self.succeed("")

    def step(self, name: str, argument: str) -> int | None:
        """Carry out one line. Return the exit code when the line ends the conversation, else None."""
        act = getattr(self, "do_" + name.replace("-", "_"), None)
        if act is None:
            print(f"{MARK} there is no {name!r}", file=sys.stderr)
            return 2
        code: int | None = act(argument)
        return code

    def event(self, kind: str, **fields: Any) -> None:
        """Write one event."""
        line = {"type": kind, **fields, "session_id": self.session_id, "uuid": str(uuid.uuid4())}
        print(json.dumps(line), flush=True)

    def message(self, text: str, **fields: Any) -> None:
        """Write a message of the assistant."""
        self._messages += 1
        message = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": "<synthetic>" if "error" in fields else self._model,
            "content": [{"type": "text", "text": text}],
            "usage": USAGE,
        }
        self.event("assistant", message=message, parent_tool_use_id=None, **fields)

    def result(self, subtype: str = "success", *, is_error: bool, **fields: Any) -> int:
        """Write the result and return the exit code that belongs to it."""
        self._cost += COST_USD
        self.event(
            "result",
            subtype=subtype,
            is_error=is_error,
            duration_ms=1200,
            duration_api_ms=1000,
            num_turns=1,
            total_cost_usd=self._cost,
            usage=USAGE,
            permission_denials=[],
            **fields,
        )
        return 1 if is_error else 0

    def succeed(self, text: str) -> int:
        """Write the result of a run that succeeded, and return its exit code."""
        words = len(self.prompt.split())
        text = (
            text or f"The stand-in for Claude read a prompt of {words} words and did nothing else."
        )
        self.message(text + self._shown)
        return self.result(is_error=False, result=text + self._shown)

    def fail_api(self, status: int, kind: str, text: str) -> int:
        """Write an API error as claude does: with the subtype `success`, and with `is_error`."""
        self.message(text, error=kind)
        return self.result(is_error=True, api_error_status=status, result=text)

    # --- The lines -------------------------------------------------------------------------------

    def do_say(self, text: str) -> None:
        self.message(text)

    def do_sleep(self, seconds: str) -> None:
        time.sleep(float(seconds))

    def do_wait_for(self, path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.05)

    def do_note(self, path: str) -> None:
        with Path(path).open("a") as file:
            file.write(f"{os.getpid()}\n")

    def do_noise(self, _: str) -> None:
        print("Warning: this is no JSON")
        print('{"type": "result", "subtype": "success", "is_error": fal')
        print('["result"]\n42\n\n{"no": "type"}')
        self.event("something_newer", result="not a result")
        self.event("rate_limit_event", rate_limit_info={"status": "allowed", "resetsAt": 1})

    def do_big_line(self, megabytes: str) -> None:
        self.event("user", message={"content": "x" * (int(megabytes) * 1024 * 1024)})

    def do_show_mcp(self, path: str) -> None:
        file = Path(path) if path else self._mcp_config
        shown = file.read_text() if file else "no MCP configuration"
        # The result shows the text twice: as it is, and inside another JSON string. stderr gets it in two pieces.
        self._shown = f" {shown} {json.dumps(shown)}"
        half = len(shown) // 2
        for piece in (shown[:half], shown[half:]):
            sys.stderr.write(piece)
            sys.stderr.flush()
            time.sleep(0.05)

    def do_ignore_term(self, _: str) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.message("SIGTERM is ignored.")

    def do_leave_child(self, _: str) -> None:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        self.message(f"child {child.pid}")

    def do_success(self, text: str) -> int:
        return self.succeed(text)

    def do_output(self, text: str) -> int:
        return self.result(is_error=False, result=text, structured_output=json.loads(text))

    def do_big_result(self, megabytes: str) -> int:
        return self.result(is_error=False, result='\u00e9"\n' * (int(megabytes) * 1024 * 1024 // 3))

    def do_two_turns(self, _: str) -> int:
        self.succeed("first turn")
        self.message("woken by work in the background")
        return self.succeed("second turn")

    def do_linger(self, _: str) -> int:
        self.succeed("")
        # Its result has told everything, so that nothing is left to tell at SIGINT.
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(FOREVER)
        return 128 + signal.SIGINT

    def do_max_turns(self, _: str) -> int:
        return self.result("error_max_turns", is_error=True, errors=["Reached maximum turns (1)"])

    def do_max_budget(self, _: str) -> int:
        return self.result("error_max_budget_usd", is_error=True, errors=["Reached maximum budget"])

    def do_execution_error(self, _: str) -> int:
        return self.result("error_during_execution", is_error=True, errors=["Something broke"])

    def do_api_error(self, status: str) -> int:
        code = int(status)
        kinds = {400: "invalid_request", 429: "rate_limit", 529: "overloaded"}
        kind = kinds.get(code, "server_error" if code >= 500 else "unknown")
        return self.fail_api(code, kind, f"API Error: {code}")

    def do_auth_error(self, _: str) -> int:
        return self.fail_api(401, "authentication_failed", "Not logged in · Please run /login")

    def do_rate_limit(self, seconds: str) -> int:
        resets_at = int(time.time()) + int(seconds or 3600)
        info = {"status": "rejected", "resetsAt": resets_at, "rateLimitType": "five_hour"}
        self.event("rate_limit_event", rate_limit_info=info)
        return self.fail_api(429, "rate_limit", "You've hit your limit")

    def do_crash(self, code: str) -> int:
        print("the stand-in crashed, as told", file=sys.stderr)
        return int(code or 1)

    def do_no_result(self, _: str) -> int:
        return 0

    def do_hang(self, _: str) -> int:
        time.sleep(FOREVER)
        return 0


def main() -> int:
    """Parse those of claude's options that a worker uses, and play the prompt from stdin."""
    parser = argparse.ArgumentParser(
        prog="standin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("-p", "--print", action="store_true", required=True)
    parser.add_argument("--output-format", choices=["stream-json"], required=True)
    parser.add_argument("--verbose", action="store_true", required=True)
    parser.add_argument("--mcp-config", type=Path)
    parser.add_argument("--strict-mcp-config", action="store_true")
    parser.add_argument("--allowedTools", "--allowed-tools", nargs="*")
    parser.add_argument("--disallowedTools", "--disallowed-tools", nargs="*")
    parser.add_argument("--settings")
    parser.add_argument("--setting-sources")
    parser.add_argument("--no-session-persistence", action="store_true")
    parser.add_argument("--session-id", type=uuid.UUID, default=uuid.uuid4())
    parser.add_argument("--json-schema", type=json.loads)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    if options.mcp_config and not _is_private_json(options.mcp_config):
        parser.error("--mcp-config is no JSON object, or others can read it")
    prompt = sys.stdin.buffer.read().decode()
    return Session(prompt, options.model, options.mcp_config, str(options.session_id)).play()


def _is_private_json(path: Path) -> bool:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content.get("mcpServers"), dict) and not path.stat().st_mode & 0o077


if __name__ == "__main__":
    sys.exit(main())
