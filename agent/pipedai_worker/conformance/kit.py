"""Runs the conformance checks against a worker's command line, several at a time, and returns the results."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

# These modules are imported only because importing them registers their checks.
from pipedai_worker.conformance import (  # noqa: F401
    CHECKS,
    PATIENCE_SECONDS,
    Check,
    approvals,
    life,
    taking,
    trouble,
)
from pipedai_worker.conformance.lab import LOG_LINES, Failed, Lab, Skipped


@dataclass(frozen=True)
class Verdict:
    """`failure` says what went wrong, `skipped` why the check is not about this worker; `log` is its output's end."""

    check: Check
    failure: str | None
    log: str = ""
    skipped: str | None = None

    @property
    def mark(self) -> str:
        if self.skipped is not None:
            return "skip"
        return "pass" if self.failure is None else "FAIL"

    def __str__(self) -> str:
        said = self.skipped or self.failure or self.check.sentence
        lines = [f"{self.mark}  {self.check.name}: {said}"]
        if self.failure is not None:
            lines.append(f"      Wanted: {self.check.sentence}.")
            lines += [f"      | {line}" for line in self.log.splitlines()]
        return "\n".join(lines)


def judge(
    command: str,
    names: Sequence[str] = (),
    *,
    jobs: int = 1,
    patience: float = PATIENCE_SECONDS,
) -> Generator[Verdict, None, None]:
    """Run the checks, at most `jobs` at once, and yield each result. `command` starts the worker under test, as in a
    shell; `{config}` in it stands for its configuration file. `patience` is how many seconds a correct worker may take
    for what it does at once. Raises KeyError for an unknown name.
    """
    checks = [CHECKS[name] for name in names] if names else list(CHECKS.values())
    called_off = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [
            pool.submit(_judge_one, command, check, patience, called_off) for check in checks
        ]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            called_off.set()
            for future in waiting:
                future.cancel()


def _judge_one(command: str, check: Check, patience: float, called_off: threading.Event) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="pipedai-conformance-") as directory:
        lab = Lab(command, Path(directory), patience=patience, called_off=called_off)
        try:
            with lab:
                check.run(lab)
        except Failed as failed:
            sentences = [str(failed), *lab.api.malformed[:1]]
            log = lab.log().splitlines()[-LOG_LINES:]
            return Verdict(check, " The API refused a request: ".join(sentences), "\n".join(log))
        except Skipped as skipped:
            return Verdict(check, None, skipped=str(skipped))
        except OSError as error:
            return Verdict(check, f"The check itself could not be carried out: {error}.")
        return Verdict(check, None)
