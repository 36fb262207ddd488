"""Defines what an executor, which runs the program of a run, receives and returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipedai_worker.polling.assigned import AssignedRun
from pipedai_worker.redact import Redactor
from pipedai_worker.reporting.outcome import FAILED, INFRA, Outcome
from pipedai_worker.running.process import Program
from pipedai_worker.running.stopping import StopReason

# The feature of an executor that can park a run while a person decides on a tool call, and resume it.
APPROVALS = "approvals"


@dataclass(frozen=True)
class JobSession:
    id: str
    # True if an earlier attempt has begun the session, and claude is to resume it.
    resumed: bool = False
    # True if the session ends with a tool call that claude has deferred, and is to make now.
    deferred: bool = False
    # True if claude has to keep files from which the session can be resumed later.
    kept: bool = False
    # The names of the tools that earlier attempts called without getting an answer.
    unanswered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    run: AssignedRun
    # The working directory: new, empty, and used by this run only.
    directory: Path
    # The file with the MCP configuration, mode 0600.
    mcp_config: Path
    # The URL of the worker's gateway, the server on this machine that leads to the run's MCP server.
    mcp_url: str
    # A directory for files that an executor makes for the run. It is removed with the run.
    files: Path
    session: JobSession
    # The program's environment variables: at first those of the worker that are allowed. An executor may add others.
    environment: dict[str, str]
    redactor: Redactor
    # Called several times a second; returns the reason to stop the run, or None.
    should_stop: Callable[[], StopReason | None]
    # Returns how many seconds the program gets from the first signal that asks it to end until SIGKILL.
    term_grace: Callable[[], float]
    # Called as soon as the program runs, so that the worker's next start can find the program if the worker is killed.
    launched: Callable[[Program], None]
    # Called once, when claude has begun to work in the session.
    session_begun: Callable[[], None]
    # Called with the type and the payload of each event as soon as the program writes it.
    on_event: Callable[[str, Any], None]
    # Returns what the API is told of the tool call with this id of claude's, if the gateway had it deferred; else None.
    parked: Callable[[object], dict[str, Any] | None] = lambda _: None


@dataclass(frozen=True)
class Execution:
    """How the execution of a run's program ended. If `stopped_by` is set, the worker decides the status, and takes only
    some fields of `outcome`, such as the cost. At the time limit it also takes the fault class: `infra` if the model's
    API failed or claude had not begun, otherwise `client`.
    """

    outcome: Outcome
    stopped_by: StopReason | None = None
    # True if claude could not resume the job's session. It has done nothing then, and asked no model.
    session_refused: bool = False
    # True if claude found no deferred call in the job's session, and has done nothing.
    nothing_deferred: bool = False


class Executor:
    """Executes one job per call. Several threads may call it at the same time. Unless an executor says otherwise, its
    program is one of which the worker knows nothing.
    """

    # True if the run's MCP server has to answer before the program is launched.
    needs_server = False
    # True if a run can go on in the session of an earlier attempt.
    resumes = False
    # What the executor can do that not every one can, as the API names it. A program of which nothing is known can't be
    # parked in the middle, so it gets no runs in which a person has to approve a call.
    features: tuple[str, ...] = ()

    @property
    def credentials(self) -> tuple[str, ...]:
        """The environment variables that the program logs in with. Their values are secrets, and may change."""
        return ()

    def execute(self, job: Job) -> Execution:
        """Run the job to its end. No failure is raised as an exception, because a failure is an outcome too."""
        raise NotImplementedError

    def clean_up(
        self, session_id: str, directory: Path, pid: int | None, *, keep_session: bool = False
    ) -> None:
        """Remove what the program left outside the run's own directory. `keep_session` keeps the session's files."""

    def session_files(self, session_id: str, directory: Path) -> list[Path]:
        """Return the existing files and directories, outside the run's own, from which the session can be resumed."""
        return []


def launch(job: Job, argv: Sequence[str], stdin: bytes) -> Program | Outcome:
    """Return the running program. If it can't be launched, return an outcome that lets the API retry the run."""
    try:
        program = Program(
            argv,
            stdin=stdin,
            directory=job.directory,
            environment=job.environment,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Outcome(
            FAILED, INFRA, error_message=f"{argv[0]} could not be launched on the worker: {reason}"
        )
    job.launched(program)
    return program
