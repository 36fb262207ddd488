"""Checks a worker, written in any language, by letting it work against a fake API that fails on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipedai_worker.conformance.lab import Lab

# A check waits this many seconds for most things. A correct worker does them at once, but a busy machine may delay it.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Check:
    """One conformance check. Its function `run` raises Failed if the worker under test does something wrong."""

    name: str
    sentence: str
    run: Callable[[Lab], None]


CHECKS: dict[str, Check] = {}


def check(sentence: str) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Return a decorator that adds a function to the checks, under its own name. `sentence` says what it checks."""

    def register(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        name = run.__name__.replace("_", "-")
        CHECKS[name] = Check(name, sentence, run)
        return run

    return register
