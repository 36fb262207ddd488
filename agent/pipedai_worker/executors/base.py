"""What every executor gets and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipedai_worker.assigned import AssignedRun
from pipedai_worker.outcome import Outcome
from pipedai_worker.process import Program
from pipedai_worker.redact import Redactor
from pipedai_worker.stopping import StopReason


@dataclass(frozen=True)
class Job:
    """One run made ready to execute."""

    run: AssignedRun
    # Empty, new, and this run's alone.
    directory: Path
    # The MCP configuration, mode 0600.
    mcp_config: Path
    # The allow-listed environment, to which an executor may add.
    environment: dict[str, str]
    redactor: Redactor
    # Whether to stop now, asked several times a second.
    should_stop: Callable[[], StopReason | None]
    # Seconds between SIGTERM and SIGKILL.
    term_grace: Callable[[], float]
    # Told as soon as the program runs, so that it can be found again after a crash.
    launched: Callable[[Program], None]
    # Takes what the program tells as it comes: an event's type and its payload.
    told: Callable[[str, Any], None]


@dataclass(frozen=True)
class Execution:
    """What came of it. With `stopped_by`, the outcome holds what is known but decides nothing."""

    outcome: Outcome
    stopped_by: StopReason | None = None


class Executor(Protocol):
    """Executes one job at a time per call; calls may run in several threads."""

    # Names of this machine's environment variables that it needs; their values are secrets.
    @property
    def credentials(self) -> tuple[str, ...]: ...

    def execute(self, job: Job) -> Execution:
        """Run the job to its end. Raises nothing: what fails is an outcome."""
