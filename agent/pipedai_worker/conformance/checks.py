"""The registry of checks: what a right worker does, a name and a sentence each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipedai_worker.conformance.lab import Lab


@dataclass(frozen=True)
class Check:
    """One check: `run` raises Failed when the worker is not right."""

    name: str
    sentence: str
    run: Callable[[Lab], None]


CHECKS: dict[str, Check] = {}


def check(sentence: str) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Register a function as the check of its own name, which `sentence` puts in words."""

    def register(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        name = run.__name__.replace("_", "-")
        CHECKS[name] = Check(name, sentence, run)
        return run

    return register
