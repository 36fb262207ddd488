"""Executes runs with any program. It gets the prompt on stdin, and its exit code decides the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipedai_worker.executors.base import Execution, Job
from pipedai_worker.executors.launch import launch
from pipedai_worker.executors.tail import Tail
from pipedai_worker.outcome import (
    CLIENT,
    ERROR_MESSAGE_LENGTH,
    FAILED,
    SHORT_MESSAGE_LENGTH,
    SUCCEEDED,
    Outcome,
)

# An error message is a sentence and the end of stderr; this much of its length is kept for the sentence.
SENTENCE_LENGTH = 200


class CommandExecutor:
    """Runs one fixed command line for each run."""

    credentials: tuple[str, ...] = ()

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)

    def execute(self, job: Job) -> Execution:
        """Run the program. Exit code 0 is a success, and any other is the client's fault."""
        job.environment["PIPEDAI_MCP_CONFIG"] = str(job.mcp_config)
        if job.run.model:
            job.environment["PIPEDAI_MODEL"] = job.run.model
        program = launch(job, self._argv)
        if isinstance(program, Outcome):
            return Execution(program)
        stdout = Tail(job.redactor, SHORT_MESSAGE_LENGTH, partial(_tell, job, "stdout"))
        stderr = Tail(
            job.redactor, ERROR_MESSAGE_LENGTH - SENTENCE_LENGTH, partial(_tell, job, "stderr")
        )
        ending = program.supervise(
            stdout=stdout.feed,
            stderr=stderr.feed,
            should_stop=job.should_stop,
            term_grace=job.term_grace,
        )
        message, details = stdout.finish(ending), stderr.finish(ending)
        if ending.exit_code == 0:
            outcome = Outcome(SUCCEEDED, exit_code=0, short_message=message)
        else:
            outcome = Outcome(
                FAILED,
                CLIENT,
                exit_code=ending.exit_code,
                short_message=message,
                error_message=f"{Path(self._argv[0]).name} {ending.description}.\n{details}",
            )
        return Execution(outcome, ending.stopped_by)


def _tell(job: Job, stream: str, text: str) -> None:
    job.told(stream, {"text": text})
