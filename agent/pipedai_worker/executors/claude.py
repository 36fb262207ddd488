"""Executes runs with `claude -p`: its command line, settings and limits, its account, and what it leaves behind."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipedai_worker.api import ApiError
from pipedai_worker.disk import durable
from pipedai_worker.executors.base import (
    APPROVALS,
    BEFORE,
    Execution,
    Executor,
    Job,
    is_blank,
    launch,
    stdin_for_claude,
    stdin_to_resume,
)
from pipedai_worker.executors.claude_names import SERVER_NAME, TOOL_PREFIX
from pipedai_worker.executors.watch import Watch
from pipedai_worker.identity import CLAUDE_MAX, CREDENTIALS
from pipedai_worker.running.assigned import Approvals
from pipedai_worker.running.outcome import CLIENT, FAILED, Outcome


@dataclass
class ClaudeExecutor(Executor):
    """Runs `argv`, which is claude or behaves like it. `auth_mode` returns how claude is paid for. A program that is
    silent for `silence_seconds` is stopped; 0 sets no limit. No run's claude may read or change the worker's `own`
    files and directories.
    """

    resumes = True
    features = (APPROVALS, BEFORE)

    argv: Sequence[str]
    auth_mode: Callable[[], str]
    silence_seconds: float
    needs_server: bool = True
    own: Sequence[Path] = ()

    @property
    def credentials(self) -> tuple[str, ...]:
        return CREDENTIALS[self.auth_mode()]

    def execute(self, job: Job) -> Execution:
        why = _refusal(job)
        if why is not None:
            return Execution(Outcome(FAILED, CLIENT, error_message=why))
        job.environment.update(QUIET_VARIABLES)
        job.environment.update(patience_variables(job.run.timeout_seconds))
        if job.run.approvals is not None:
            # Without this, a task that ends after a call was deferred makes claude go on without the call.
            job.environment["CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"] = "1"
        job.environment["CLAUDE_CODE_TMPDIR"] = job.environment.get("TMPDIR", str(job.files))
        session = job.session
        if session.deferred:
            # Without a prompt, claude goes on with the call that it has deferred.
            stdin = b""
        elif session.resumed:
            stdin = stdin_to_resume(session.unanswered)
        else:
            stdin = stdin_for_claude(job.run)
        program = launch(job, self._command_line(job), stdin)
        if isinstance(program, Outcome):
            return Execution(program)
        watch = Watch(job, self.silence_seconds)
        ending = program.supervise(
            stdout=watch.read,
            stderr=watch.stderr.feed,
            should_stop=watch.should_stop,
            term_grace=job.term_grace,
            # After SIGINT claude still writes a result, which tells what the run has cost.
            interrupt_first=True,
        )
        return watch.conclude(ending)

    def clean_up(
        self, session_id: str, directory: Path, pid: int | None, *, keep_session: bool = False
    ) -> None:
        remove_paths(process_paths(directory, session_id, pid))
        if not keep_session:
            remove_paths(session_paths(directory, session_id))

    def session_files(self, session_id: str, directory: Path) -> list[Path]:
        """Return claude's files of the session; none if the conversation itself is not among them."""
        found = [path for path in session_paths(directory, session_id) if os.path.lexists(path)]
        # Without the file with the conversation, claude can't resume the session.
        with contextlib.suppress(OSError):
            if any((path / f"{session_id}.jsonl").is_file() for path in found):
                return found
        return []

    def _command_line(self, job: Job) -> list[str]:
        command_line = [
            *self.argv,
            "-p",
            "--mcp-config",
            str(job.mcp_config),
            "--strict-mcp-config",
            "--output-format",
            "stream-json",
            "--verbose",
            # Nobody is there to grant permissions. This option permits the tools of the run's own MCP server. Any other
            # tool needs a permission in this machine's settings for claude.
            "--allowedTools",
            f"mcp__{SERVER_NAME}",
            *limiting_options(job.run.approvals, job.mcp_config, self.own),
            *([] if job.session.kept else [FORGET_SESSION]),
            "--resume" if job.session.resumed else "--session-id",
            job.session.id,
        ]
        if job.run.max_cost_usd:
            command_line += ["--max-budget-usd", job.run.max_cost_usd]
        if job.run.model:
            command_line += ["--model", job.run.model]
        if job.run.output_schema is not None:
            command_line += ["--json-schema", json.dumps(job.run.output_schema)]
        return command_line


def _refusal(job: Job) -> str | None:
    if job.run.model and job.run.model.startswith("-"):
        return "The model's name begins with a dash."
    if is_blank(job.run):
        return "The prompt is empty or only white space."
    return None


def mcp_configuration(url: str, timeout_seconds: float) -> bytes:
    """Return the text for `--mcp-config`, without a server if `url` is empty. `timeout_seconds` is how long a tool call
    may take.
    """
    server = {
        "type": "http",
        "url": url,
        # Claude then tells the model about the tools from the beginning, and not only when it searches for tools.
        "alwaysLoad": True,
        # Without this limit claude would end a tool call when nothing came from it for 300 s.
        "timeout": round(timeout_seconds * 1000),
    }
    return json.dumps({"mcpServers": {SERVER_NAME: server} if url else {}}).encode()


# With these variables claude reads no file that the prompt mentions, keeps no memory from run to run, and calls no
# service but the model's API and the run's MCP server.
QUIET_VARIABLES = {
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    # Older versions of claude do not know the variable above. This one, too, keeps them from reading mentioned files.
    # It also loads all tools at once, which `alwaysLoad` does anyway.
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
# Of claude's own tools, a run with gated calls has only these: none runs a command, writes a file or reaches the web.
# Grep is not among them, as that of older versions finds text in files that claude must not read.
HOST_TOOLS = "Read,Glob,Agent"
# The gateway may have to wait for the disk before it answers the hook.
HOOK_SECONDS = 60
HOOK = Path(__file__).with_name("hook.py")


def limiting_options(
    approvals: Approvals | None, mcp_config: Path, own: Sequence[Path] = ()
) -> list[str]:
    """Return the options that limit what claude can do in a run. With `approvals`, claude asks the gateway about each
    call of the run's MCP server by a hook, which reads the gateway's URL from `mcp_config`. Claude's tools for files
    refuse that file and `own`, the worker's files and directories, whatever the account's own settings allow.
    """
    hidden = [mcp_config, *own]
    every = dict.fromkeys(each for path in hidden for each in (path.absolute(), path.resolve()))
    # These rules also hold for what is below a path.
    denied = [f"{tool}({_pattern(path)})" for path in every for tool in ("Read", "Edit")]
    settings: dict[str, Any] = {
        "crossSessionInbound": "refuse",
        "permissions": {"deny": denied},
    }
    if approvals is not None:
        arguments = [str(HOOK), str(mcp_config), str(HOOK_SECONDS)]
        command = shlex.join([sys.executable, "-I", "-S", *arguments])
        hook = {"type": "command", "command": command, "timeout": HOOK_SECONDS}
        settings["hooks"] = {"PreToolUse": [{"matcher": f"{TOOL_PREFIX}.*", "hooks": [hook]}]}
    limited = approvals is not None and not approvals.allow_host_tools
    return [
        # `--disallowedTools` forbids these tools, and the setting after them refuses messages. Otherwise runs that are
        # executed at the same time could find each other and send each other messages.
        "--disallowedTools",
        "SendMessage",
        "ListAgents",
        "--settings",
        json.dumps(settings),
        # Claude reads the settings of the user's account, but none of the run's directory or those above it.
        "--setting-sources",
        "user",
        *(["--tools", HOST_TOOLS] if limited else []),
    ]


def _pattern(path: Path) -> str:
    # Two slashes begin an absolute path. In the parentheses of a rule, claude takes it for a pattern of gitignore.
    return re.sub(r"[()\\]", r"\\\g<0>", re.sub(r"[][*?!#\\]", r"\\\g<0>", f"/{path}"))


# With this option, claude writes no file from which a session can be resumed.
FORGET_SESSION = "--no-session-persistence"


# After a failed call of the model's API, claude waits half a second, then twice as long each time, up to 32 s.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 32.0
FEWEST_RETRIES, MOST_RETRIES = 2, 10
SHORTEST_CALL_SECONDS, LONGEST_CALL_SECONDS = 15.0, 360.0
# The bounds for the pause that claude accepts inside an answer of the model's API, which pauses a few seconds at most.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 180.0
# How long claude may take to connect to the worker's gateway on this machine, which answers at once.
CONNECT_MILLISECONDS = 30_000


def patience_variables(timeout_seconds: float) -> dict[str, str]:
    """Return the variables that limit how long claude waits. A quarter of the run's time is for its pauses between
    attempts, and another for an attempt without an answer, so that claude reports a failing API in time.
    """
    share = timeout_seconds / 4
    call = min(max(share, SHORTEST_CALL_SECONDS), LONGEST_CALL_SECONDS)
    pause = min(max(share, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    return {
        "CLAUDE_CODE_MAX_RETRIES": str(_retries(share)),
        "API_TIMEOUT_MS": str(round(call * 1000)),
        # API_TIMEOUT_MS limits the wait until an answer begins. The variables below limit each pause inside an answer,
        # after which claude calls again. Claude heeds CLAUDE_ENABLE_BYTE_WATCHDOG only with Anthropic's own API. With
        # other APIs its limit for a pause is 5 minutes.
        "CLAUDE_ENABLE_BYTE_WATCHDOG": "1",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(round(pause * 1000)),
        "CLAUDE_ENABLE_STREAM_WATCHDOG": "1",
        # With 0, claude begins to work only when it has connected to the MCP server, or when connecting has failed.
        "MCP_CONNECTION_NONBLOCKING": "0",
        "MCP_TIMEOUT": str(CONNECT_MILLISECONDS),
        "MCP_CONNECT_TIMEOUT_MS": str(CONNECT_MILLISECONDS),
        # A call of a tool may take as long as the run.
        "MCP_TOOL_TIMEOUT": str(round(timeout_seconds * 1000)),
    }


def _retries(seconds: float) -> int:
    waited, wait = 0.0, FIRST_WAIT_SECONDS
    for count in range(MOST_RETRIES):
        waited += wait
        if waited > seconds:
            return max(count, FEWEST_RETRIES)
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)
    return MOST_RETRIES


# Of claude's own files the worker reads at most this many bytes.
LARGEST_FILE = 64 * 1024 * 1024
# Claude names directories after the working directory's path, with dashes for all but letters and digits.
_NOT_A_LETTER = re.compile(r"[^a-zA-Z0-9]")


def remove_paths(paths: Iterable[Path]) -> None:
    """Remove these files and directories, as far as they exist and can be removed. It raises nothing."""
    for path in paths:
        # `is_dir` raises PermissionError below a home directory that this account may not enter.
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                durable.remove_directory(path)
            else:
                path.unlink()


def session_paths(work: Path, session_id: str) -> Iterator[Path]:
    """Return the paths that claude needs to resume a session; not all of them exist. The names contain `work` and
    `session_id`, which are random, so that no other run's files match.
    """
    config = config_directory()
    if config is not None:
        yield from (config / "projects" / name for name in _names(work))
        for kind in ("session-env", "todos", "tasks", "file-history"):
            yield config / kind / session_id


def process_paths(work: Path, session_id: str, pid: int | None) -> Iterator[Path]:
    """Return the files that a process of claude leaves behind and that no later process needs."""
    home = _directory("HOME")
    config = config_directory()
    if config is not None:
        with contextlib.suppress(OSError):
            # The file is read as bytes, as a claude that was killed may have left it cut within a character.
            if pid is not None and session_id.encode() in durable.read_regular(
                config / "sessions" / f"{pid}.json", LARGEST_FILE
            ):
                yield from list((config / "sessions").glob(f"{pid}.*"))
    cache = _directory("XDG_CACHE_HOME")
    if home is not None:
        cache = home / "Library/Caches" if sys.platform == "darwin" else cache or home / ".cache"
    if cache is not None:
        yield from (cache / "claude-cli-nodejs" / name for name in _names(work))


def config_directory() -> Path | None:
    """Return the directory of claude's settings and sessions; None if the account has no home."""
    home = _directory("HOME")
    return _directory("CLAUDE_CONFIG_DIR") or (home and home / ".claude")


def _names(work: Path) -> set[str]:
    # The run may have put links in place of its own two directories, which lead to those of others, or in a circle.
    real = Path(os.path.realpath(work.parent.parent), *work.parts[-2:])
    return {_NOT_A_LETTER.sub("-", str(path)) for path in (work, real)}


def _directory(variable: str) -> Path | None:
    named = os.environ.get(variable)
    return Path(named) if named else None


# Somebody may log in with another account at any time, so the login is read again this often.
LOOK_SECONDS = 60.0
# If the API can't say to which environment the worker belongs, it is asked again after this time.
ASK_AGAIN_SECONDS = 600.0


@dataclass
class Account:
    """Claude's account. `ask_environment` asks the API for the environment's id, if that is not known."""

    _auth_mode: Callable[[], str]
    _environment_id: str | None
    _ask_environment: Callable[[], str | None]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ask_at: float = 0.0
    _look_at: float = 0.0
    _word: str | None = None

    def word(self) -> str | None:
        """Return the HMAC that names the account, the same on all the environment's machines; None if unknown."""
        with self._lock:
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                environment_id = self._environment(now)
                identity = account_identity(self._auth_mode())
                known = environment_id is not None and identity is not None
                self._word = account_word(str(environment_id), str(identity)) if known else None
            return self._word

    def _environment(self, now: float) -> str | None:
        if self._environment_id is None and now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            try:
                self._environment_id = self._ask_environment()
            except ApiError:
                self._ask_at = now
        return self._environment_id


def account_word(environment_id: str, identity: str) -> str:
    """Return the word for an account in an environment: an HMAC of the account under the environment's id."""
    return hmac.new(environment_id.encode(), identity.encode(), hashlib.sha256).hexdigest()


def account_identity(auth_mode: str) -> str | None:
    """Return what identifies claude's account, or None. It is a secret: a token, a key, or the login."""
    for variable in CREDENTIALS[auth_mode]:
        if os.environ.get(variable):
            return f"{variable} {os.environ[variable]}"
    login = _login() if auth_mode == CLAUDE_MAX else {}
    account_id = login.get("accountUuid")
    if not isinstance(account_id, str) or not account_id:
        return None
    # A person can be a member of several organizations, which have usage limits of their own.
    return f"login {account_id} {login.get('organizationUuid')}"


def _login() -> dict[str, Any]:
    """Return what claude's own file says of the account that it is logged in with; {} if it is not logged in."""
    directory = _directory("CLAUDE_CONFIG_DIR") or _directory("HOME")
    try:
        content: Any = {}
        if directory:
            content = json.loads(durable.read_regular(directory / ".claude.json", LARGEST_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    login = content.get("oauthAccount") if isinstance(content, dict) else None
    return login if isinstance(login, dict) else {}
