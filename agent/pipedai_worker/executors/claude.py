"""Executes runs with `claude -p`: makes its command line and its environment, and removes what it leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pipedai_worker.executors import settings, traces
from pipedai_worker.executors.base import (
    APPROVALS,
    Execution,
    Executor,
    Job,
    allowed,
    is_blank,
    launch,
    stdin_for_claude,
    stdin_to_resume,
)
from pipedai_worker.executors.settings import SERVER_NAME
from pipedai_worker.executors.watch import Watch
from pipedai_worker.identity.paying import CREDENTIALS
from pipedai_worker.reporting.outcome import CLIENT, FAILED, Outcome


class ClaudeExecutor(Executor):
    """Runs `argv`, which is claude or behaves like it. `auth_mode` returns how claude is paid for. A program that is
    silent for `silence_seconds` is stopped; 0 sets no limit. With `offline` it needs no MCP server. No run's claude may
    read or change the worker's `own` files and directories.
    """

    resumes = True
    features = (APPROVALS,)

    def __init__(
        self,
        argv: Sequence[str],
        *,
        auth_mode: Callable[[], str],
        silence_seconds: float,
        offline: bool = False,
        own: Sequence[Path] = (),
    ) -> None:
        self._argv = tuple(argv)
        self._auth_mode = auth_mode
        self._silence_seconds = silence_seconds
        self._own = tuple(own)
        self.needs_server = not offline

    @property
    def credentials(self) -> tuple[str, ...]:
        return CREDENTIALS[self._auth_mode()]

    def execute(self, job: Job) -> Execution:
        why = _refusal(job)
        if why is not None:
            return Execution(Outcome(FAILED, CLIENT, error_message=why))
        job.environment.update(settings.VARIABLES)
        job.environment.update(settings.variables(job.run.timeout_seconds))
        if job.run.approvals is not None:
            # After a call is deferred, what ends in the background would make claude go on without the call.
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
        watch = Watch(job, self._silence_seconds)
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
        environment = allowed()
        traces.remove(traces.of_process(directory, session_id, pid, environment))
        if not keep_session:
            traces.remove(traces.of_session(directory, session_id, environment))

    def session_files(self, session_id: str, directory: Path) -> list[Path]:
        """Return claude's files of the session; none if the conversation itself is not among them."""
        if not traces.conversation(directory, session_id, allowed()):
            return []
        found = traces.of_session(directory, session_id, allowed())
        return [path for path in found if os.path.lexists(path)]

    def _command_line(self, job: Job) -> list[str]:
        command_line = [
            *self._argv,
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
            *settings.options(job.run.approvals, job.mcp_config, self._own),
            *([] if job.session.kept else [settings.FORGET_SESSION]),
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
