"""Launches an executor's program, and makes the outcome when it can't be launched."""

from __future__ import annotations

from collections.abc import Sequence

from pipedai_worker.executors.base import Job
from pipedai_worker.outcome import FAILED, INFRA, Outcome
from pipedai_worker.process import Program


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
