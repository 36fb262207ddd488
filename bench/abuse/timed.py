"""The measurements of the neighbour: things that were due at a moment and were done some time later."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.load import Window


@dataclass(frozen=True, slots=True)
class Timed:
    """One call, or one thing that the service should do by itself."""

    kind: str
    due: float  # when it was due, by `time.monotonic()`
    seconds: float  # how long after that it was done or failed
    failure: str | None = None


def within(things: Iterable[Timed], windows: Iterable[Window]) -> list[Timed]:
    """Return the things that were due within one of the windows."""
    stretches = list(windows)
    return [each for each in things if any(each.due in window for window in stretches)]
