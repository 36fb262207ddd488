"""Lets a transaction that makes many changes do once what each of them alone would do: lock, count, read, tell.

A rehearsal is such a transaction that is rolled back: it tells nobody, and takes no lock that others could wait for.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipedai.events import Event, emit, gathering

T = TypeVar("T")


@dataclass(slots=True)
class _Together:
    is_rehearsal: bool
    done: dict[Hashable, Any] = field(default_factory=dict)


_present: ContextVar[_Together | None] = ContextVar("together", default=None)


@contextmanager
def together(*, is_rehearsal: bool = False) -> Iterator[None]:
    """Wraps the changes of one transaction. What they tell is told at the end of the block, or not at all."""
    events: list[Event] = []
    token = _present.set(_Together(is_rehearsal))
    try:
        with gathering(events):
            yield
    finally:
        _present.reset(token)
    if not is_rehearsal:
        emit(*events)


def once(what: Hashable, do: Callable[[], T]) -> T:
    """Returns what `do` returns. Of changes made together, only the first one that asks for `what` does it."""
    present = _present.get()
    if present is None:
        return do()
    if what not in present.done:
        present.done[what] = do()
    found: T = present.done[what]
    return found


def keep(what: Hashable, found: Any) -> None:
    """Lets `once` return this. Whoever reads many rows by one statement so spares others one for each."""
    present = _present.get()
    assert present is not None, "keep() needs together()"
    present.done[what] = found


def is_together() -> bool:
    return _present.get() is not None


def is_rehearsal() -> bool:
    present = _present.get()
    return present is not None and present.is_rehearsal
