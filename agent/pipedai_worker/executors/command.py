"""Executes runs with any program. It gets the prompt on stdin, and its exit code decides the outcome."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipedai_worker.disk import durable
from pipedai_worker.executors.base import Execution, Executor, Job, launch, stdin_text
from pipedai_worker.running.outcome import (
    ABSENT,
    CLIENT,
    ERROR_MESSAGE_LENGTH,
    FAILED,
    LARGEST_BYTES,
    SHORT_MESSAGE_LENGTH,
    SUCCEEDED,
    Outcome,
    settle,
)
from pipedai_worker.running.process import Head, Tail

# An error message is a sentence and the end of stderr; this much of its length is kept for the sentence.
SENTENCE_LENGTH = 200
# At most this much of an output file is read: more than an output may have, because there may be white space.
LARGEST_OUTPUT_FILE = 4 * LARGEST_BYTES
# Stands for the content of an output file that holds no JSON. No JSON text has this value.
NOT_JSON = float("nan")


class CommandExecutor(Executor):
    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)

    def execute(self, job: Job) -> Execution:
        output_file, payload_file = job.files / "output.json", job.files / "payload.json"
        durable.write_private(payload_file, json.dumps(job.run.payload).encode())
        job.environment["PIPEDAI_MCP_CONFIG"] = str(job.mcp_config)
        job.environment["PIPEDAI_MCP_URL"] = job.mcp_url
        job.environment["PIPEDAI_PAYLOAD"] = str(payload_file)
        job.environment["PIPEDAI_OUTPUT"] = str(output_file)
        if job.run.output_schema is not None:
            schema_file = job.files / "output-schema.json"
            durable.write_private(schema_file, json.dumps(job.run.output_schema).encode())
            job.environment["PIPEDAI_OUTPUT_SCHEMA"] = str(schema_file)
        if job.run.model:
            job.environment["PIPEDAI_MODEL"] = job.run.model
        if job.run.max_cost_usd:
            job.environment["PIPEDAI_MAX_COST_USD"] = job.run.max_cost_usd
        program = launch(job, self._argv, stdin_text(job.run))
        if isinstance(program, Outcome):
            return Execution(program)
        stdout = Head(job.redactor, SHORT_MESSAGE_LENGTH, partial(_tell, job, "stdout"))
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
            success = Outcome(SUCCEEDED, exit_code=0, short_message=message)
            found = _read(output_file)
            outcome = settle(success, job.run.output_schema, found, job.redactor)
        else:
            outcome = Outcome(
                FAILED,
                CLIENT,
                exit_code=ending.exit_code,
                short_message=message,
                error_message=f"{Path(self._argv[0]).name} {ending.description}.\n{details}",
            )
        return Execution(outcome, ending.stopped_by)


def _read(path: Path) -> Any:
    """Return the JSON in the file that the program wrote; ABSENT if there is no file, NOT_JSON if it holds no JSON."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return NOT_JSON
        with path.open("rb") as file:
            content = file.read(LARGEST_OUTPUT_FILE + 1)
        if not content:
            return ABSENT
        return json.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        return ABSENT
    except (OSError, ValueError, RecursionError):
        return NOT_JSON


def _tell(job: Job, stream: str, text: str) -> None:
    job.on_event(stream, {"text": text})
