"""What the neighbour's life consists of: things that were due at a moment, and were done some time later."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.load import Window


@dataclass(frozen=True, slots=True)
class Timed:
    """One call, or one thing that the service was to do by itself."""

    kind: str
    due: float  # by `time.monotonic()`
    seconds: float  # from then until it was done, or until it had failed
    failure: str | None = None


def within(things: Iterable[Timed], windows: Iterable[Window]) -> list[Timed]:
    """Those that were due within one of the windows."""
    stretches = list(windows)
    return [each for each in things if any(each.due in window for window in stretches)]
