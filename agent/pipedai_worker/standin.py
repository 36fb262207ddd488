#!/usr/bin/env python3
"""A stand-in for `claude -p --output-format stream-json` that does what the prompt's lines say, at no cost.

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
  standin: given               the same, with what the prompt has between marker lines, by their kind
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
import contextlib
import gc
import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A program that is started by its path does not know where its package is. These lines tell Python the directory.
if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipedai_worker.executors.claude_names import DEFERRED, TOOL_PREFIX
from pipedai_worker.stand_in.conversation import (
    ApiError,
    Conversation,
    StoredSession,
    api_error_of,
    sample,
)
from pipedai_worker.stand_in.tools import BackgroundTask, Server, ask_hook

VERSION = "0.0.0 (PipedAI stand-in for Claude Code)"
DEFAULT_MODEL = "stand-in-1"


def main() -> int:
    """Parse those of claude's options that a worker uses, and carry out the prompt from stdin in claude's place."""
    # Freezing skips the garbage collection at exit, which would take a fifth of a short conversation.
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
    return Player(
        prompt, talk, server, options.mcp_config, options.settings, options.json_schema, session
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


MARK = "standin:"
FOREVER = 10**6
FALLBACK_MODEL = "stand-in-0"
RETRIES_VARIABLE = "CLAUDE_CODE_MAX_RETRIES"
DEFAULT_RETRIES = 10
_STREAMING, _TOOLS = "aborted_streaming", "aborted_tools"
_ACCEPTED = {"permission_decision": {"decision": "accept", "source": "config"}}


# What a prompt has between two marker lines, and the kind of these lines.
_FENCED = re.compile(r"^<((\w+)-[0-9a-f]{32})>\n(.*)\n</\1>$", re.MULTILINE)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class Player:
    """Carries out one prompt in claude's place. `schema` is for the run's output; None if none is asked for.

    This package has no dataclass, because importing dataclasses takes a fifth of the time of each run.
    """

    def __init__(
        self,
        prompt: str,
        talk: Conversation,
        server: Server,
        config: Path | None,
        settings: Mapping[str, Any],
        schema: Any,
        session: StoredSession,
    ) -> None:
        self._prompt, self._talk, self._server, self._session = prompt, talk, server, session
        self._config, self._settings, self._schema = config, settings, schema
        self._shown = ""
        # The number of the line that is being carried out, from 1 on.
        self._number = 0
        # The id of the tool call whose answer the model waits for; None if it waits for none.
        self._calling: str | None = None
        marked = session.lines()
        if marked is None:
            marked = [line[len(MARK) :] for line in prompt.splitlines() if line.startswith(MARK)]
        self._marked = marked
        self._lines = [line.strip().partition(" ") for line in marked]

    def play(self) -> int:
        """Carry out the prompt, and return the exit code. SIGINT ends it with a result."""
        try:
            said = [argument.strip() for name, _, argument in self._lines if name == "server"]
            self._server.connect(said[-1] if said else None)
            self._begin()
            return self._play()
        except KeyboardInterrupt:
            return self._interrupted()
        finally:
            self._server.close()

    def _begin(self) -> None:
        structured = ["StructuredOutput"] if self._schema is not None else []
        self._talk.begin(["Bash", *structured, *self._server.tools], self._server.in_init)

    def _play(self) -> int:
        for number, (name, _, argument) in enumerate(self._lines, 1):
            self._session.store(self._marked[number:])
            self._number = number
            act = getattr(self, "do_" + name.replace("-", "_"), None)
            if act is None:
                print(f"{MARK} there is no {name!r}", file=sys.stderr)
                return 2
            code: int | None = act(argument.strip())
            if code is not None:
                return code
        if self._lines:
            return self._succeed("")
        self._session.store([])
        return self._do_something()

    def _do_something(self) -> int:
        """Do what no MCP server minds: call a tool that only reads, and give an output that fits the schema."""
        tool = self._server.harmless()
        if tool is not None and (code := self.do_call(tool)) is not None:
            return code
        if self._schema is not None:
            return self.do_output(json.dumps(sample(self._schema)))
        return self._succeed("", f"called {tool}" if tool else "did nothing else")

    def _interrupted(self) -> int:
        if self._calling is None:
            self._talk.interrupted("[Request interrupted by user]")
        else:
            how = {"non_execution_kind": "user-rejected"}
            returned = "User rejected tool use"
            text = "The user doesn't want to proceed with this tool use."
            self._talk.answer(self._calling, text, returned=returned, how=how, is_error=True)
            self._talk.interrupted("[Request interrupted by user for tool use]")
        reason, stop = (_TOOLS, "tool_use") if self._calling else (_STREAMING, None)
        errors = [f"[stand-in] {reason}"]
        self._talk.result(
            "error_during_execution", is_error=True, reason=reason, stop=stop, errors=errors
        )
        return 0

    def _succeed(self, text: str, did: str = "did nothing else", **more: Any) -> int:
        count = len(self._prompt.split())
        words = "1 word" if count == 1 else f"{count} words"
        text = text or f"The stand-in for Claude read a prompt of {words} and {did}."
        self._talk.say(text + self._shown)
        return self._done(text + self._shown, **more)

    def _done(self, text: str, **more: Any) -> int:
        return self._talk.result(
            "success", reason="completed", stop="end_turn", result=text, **more
        )

    def _fail(self, subtype: str, reason: str, why: str) -> int:
        if not self._talk.has_spoken:
            self._talk.say("I begin.")
        return self._talk.result(
            subtype, is_error=True, reason=reason, stop="tool_use", errors=[why]
        )

    def _complain(
        self,
        kind: str,
        text: str,
        params: Mapping[str, Any] = {},
        *,
        reason: str = "api_error",
        **fields: Any,
    ) -> int:
        """Write an API error as claude does: a `success` with `is_error`. Only the message has `params`."""
        number = {"request_id": "req_stand_in"} if "api_error_status" in fields else {}
        self._talk.complain(kind, text, **number, **params, **fields)
        return self._talk.result(
            "success", is_error=True, reason=reason, stop="stop_sequence", result=text, **fields
        )

    def _retry(self, error: ApiError, times: int | None) -> None:
        """Write that the model's API is called again, so many times or, with None, as often as the settings allow."""
        most = int(os.environ.get(RETRIES_VARIABLE) or DEFAULT_RETRIES)
        for attempt in range(1, (most if times is None else times) + 1):
            self._talk.retry(error.status, error.retried_as or error.kind, attempt, most)

    # --- Lines after which the next line is carried out --------------------------------------------

    def do_server(self, _: str) -> None:
        """Do nothing, because `play` has carried this line out before all others."""

    def do_say(self, text: str) -> None:
        self._talk.say(text)

    def do_think(self, text: str) -> None:
        self._talk.think(text)

    def do_warn(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def do_call(self, text: str, *, hooked: bool = True) -> int | None:
        tool, _, arguments = text.partition(" ")
        given = json.loads(arguments or "{}")
        number = self._server.call(self._talk, tool, given)
        name = TOOL_PREFIX + tool
        asked = {"tool_use_id": number, "tool_input": given}
        settings = self._settings if hooked else {}
        decision, why = ask_hook(settings, name, session_id=self._talk.session_id, **asked)
        if decision == "deny":
            self._talk.deny(number, name, given, why)
        elif decision == "defer":
            self._session.store(self._marked[self._number - 1 :], deferred=True)
            deferred = {"id": number, "name": name, "input": given}
            return self._talk.result(
                "success", reason=DEFERRED, stop=DEFERRED, result="", deferred_tool_use=deferred
            )
        else:
            self._calling = number
            self._server.answer(self._talk, number, tool, given)
            self._calling = None
        return None

    def do_call_unhooked(self, text: str) -> None:
        self.do_call(text, hooked=False)

    def do_deny(self, _: str) -> None:
        arguments = {"command": "date", "description": "Ask for the time"}
        self._talk.deny(self._talk.call("Bash", arguments), "Bash", arguments)

    def do_retry(self, text: str) -> None:
        what, _, times = text.partition(" ")
        self._retry(api_error_of(what), int(times or 1))

    def do_fallback(self, model: str) -> None:
        old, self._talk.model = self._talk.model, model or FALLBACK_MODEL
        text = f"Switched to {self._talk.model} due to high demand for {old}"
        models = {"original_model": old, "fallback_model": self._talk.model}
        self._talk.system("model_fallback", trigger="overloaded", content=text, **models)

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
        self._talk.event("something_newer", result="not a result")
        self._talk.limit("allowed", resetsAt=1)

    def do_big_line(self, megabytes: str) -> None:
        self._talk.event("user", message={"content": "x" * (int(megabytes) * 1024 * 1024)})

    def do_flood(self, megabytes: str) -> None:
        for number in range(int(megabytes) * 128):
            self._talk.say(f"{number} " * (8 * 1024 // (len(str(number)) + 1)))

    def do_show_mcp(self, path: str) -> None:
        file = Path(path) if path else self._config
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
        self._talk.say("SIGTERM is ignored.")

    def do_leave_child(self, _: str) -> None:
        import subprocess  # imported here, because few runs need it and importing takes time

        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        self._talk.say(f"child {child.pid}")

    # --- The lines that end the run ----------------------------------------------------------------

    def do_success(self, text: str) -> int:
        return self._succeed(text)

    def do_output(self, text: str) -> int:
        value = json.loads(text)
        number = self._talk.call("StructuredOutput", value)
        text = "Structured output provided successfully"
        self._talk.answer(number, text, returned=text, how=_ACCEPTED)
        return self._talk.result(
            "success", reason="completed", stop="tool_use", result=text, structured_output=value
        )

    def do_given(self, _: str) -> int:
        found = _FENCED.findall(self._prompt)
        given = {kind: _json_or_text(text) for _, kind, text in found}
        return self.do_output(json.dumps(given))

    def do_big_result(self, megabytes: str) -> int:
        self._talk.say("It is long.")
        return self._done('\u00e9"\n' * (int(megabytes) * 1024 * 1024 // 3))

    def do_two_turns(self, seconds: str) -> int:
        task = BackgroundTask(self._talk, float(seconds or 0.1))
        self._succeed("first turn")
        origin = task.end()
        self._begin()
        return self._succeed("second turn", origin=origin)

    def do_linger(self, _: str) -> int:
        self._succeed("")
        # The conversation is over, so SIGINT has nothing left to interrupt. It only ends this sleep.
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(FOREVER)
        return 0

    def do_max_turns(self, _: str) -> int:
        return self._fail("error_max_turns", "max_turns", "Reached maximum number of turns (1)")

    def do_max_budget(self, _: str) -> int:
        return self._fail("error_max_budget_usd", "budget_exhausted", "Reached maximum budget")

    def do_execution_error(self, _: str) -> int:
        return self._fail("error_during_execution", "model_error", "Something broke")

    def do_api_error(self, what: str) -> int:
        error = api_error_of(what)
        if error.retried_as:
            self._retry(error, error.retries)
        if error.kind == "rate_limit":
            self._talk.limit("rejected")
        return self._complain(error.kind, f"API Error: {what}", reason=error.reason, **error.fields)

    def do_auth_error(self, _: str) -> int:
        return self._complain("authentication_failed", "Not logged in · Please run /login")

    def do_rate_limit(self, seconds: str) -> int:
        resets_at = int(time.time()) + int(seconds or 3600)
        window = {"utilization": 1, "resetsAt": resets_at, "status": "rejected"}
        info = {
            "resetsAt": resets_at,
            "rateLimitType": "five_hour",
            "overageStatus": "rejected",
            "overageDisabledReason": "org_level_disabled",
        }
        windows = {"five_hour": window, "seven_day": {**window, "status": "allowed"}}
        self._talk.limit("rejected", **info, unifiedWindows=windows)
        info = {"status": "rejected", "isUsingOverage": False, **info}
        fields: dict[str, Any] = {**api_error_of("429").fields, "api_error": "usage_limit_reached"}
        params = {"api_error_params": {"rate_limit_info": info}}
        return self._complain("rate_limit", "You've hit your limit", params, **fields)

    def do_crash(self, code: str) -> int:
        print("the stand-in crashed, as told", file=sys.stderr)
        return int(code or 1)

    def do_no_result(self, _: str) -> int:
        return 0

    def do_hang(self, _: str) -> int:
        time.sleep(FOREVER)
        return 0


if __name__ == "__main__":
    sys.exit(main())
