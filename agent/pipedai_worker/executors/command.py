"""Executes runs with any program: the prompt on stdin, the exit code decides, its output's end is the message."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from pipedai_worker.executors.base import Execution, Job
from pipedai_worker.executors.launch import launch
from pipedai_worker.outcome import (
    CLIENT,
    ERROR_MESSAGE_LENGTH,
    FAILED,
    SHORT_MESSAGE_LENGTH,
    SUCCEEDED,
    Outcome,
)
from pipedai_worker.redact import RedactingStream, Redactor


class CommandExecutor:
    """Runs one fixed command line for each run."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)

    def execute(self, job: Job) -> Execution:
        """Exit code 0 is success, any other the program's own failure."""
        stdout = Tail(job.redactor, SHORT_MESSAGE_LENGTH)
        stderr = Tail(job.redactor, ERROR_MESSAGE_LENGTH - 200)
        job.environment["PIPEDAI_MCP_CONFIG"] = str(job.mcp_config)
        if job.run.model:
            job.environment["PIPEDAI_MODEL"] = job.run.model
        program = launch(job, self._argv)
        if isinstance(program, Outcome):
            return Execution(program)
        ending = program.supervise(
            stdout=stdout.feed,
            stderr=stderr.feed,
            should_stop=job.should_stop,
            term_grace=job.term_grace,
        )
        message = stdout.text()
        if ending.exit_code == 0:
            outcome = Outcome(SUCCEEDED, exit_code=0, short_message=message)
        else:
            said = f"{Path(self._argv[0]).name} {ending.description}"
            outcome = Outcome(
                FAILED,
                CLIENT,
                exit_code=ending.exit_code,
                short_message=message,
                error_message=f"{said}\n{stderr.text()}",
            )
        return Execution(outcome, ending.stopped_by)


class Tail:
    """The end of a program's output, redacted before it is cut so that no part of a secret is left."""

    def __init__(self, redactor: Redactor, length: int) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._redacting = RedactingStream(redactor)
        self._length = length
        self._kept = ""
        self._cut = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of output."""
        self._keep(self._redacting.feed(self._decoder.decode(chunk)))

    def text(self) -> str:
        """The last characters; whole lines only, when something before them was cut off."""
        self._keep(self._redacting.feed(self._decoder.decode(b"", final=True)))
        self._keep(self._redacting.finish())
        text = self._kept.strip()
        if len(text) > self._length or self._cut:
            text = text[-self._length :]
            _, newline, rest = text.partition("\n")
            text = rest if newline else text
        return text

    def _keep(self, text: str) -> None:
        # Room for trailing blank lines, which are stripped.
        room = self._length + 4096
        self._kept += text
        if len(self._kept) > room:
            self._kept = self._kept[-room:]
            self._cut = True
