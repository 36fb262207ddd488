"""Keeps the list of checks. Each has a name, and a sentence on what a correct worker does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipedai_worker.conformance.lab import Lab


@dataclass(frozen=True)
class Check:
    """One check. Its `run` raises Failed when the worker does something wrong."""

    name: str
    sentence: str
    run: Callable[[Lab], None]


CHECKS: dict[str, Check] = {}


def check(sentence: str) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Register a function as a check that has the function's name; `sentence` says what it checks."""

    def register(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        name = run.__name__.replace("_", "-")
        CHECKS[name] = Check(name, sentence, run)
        return run

    return register
