"""Runs a load in processes of its own, so that it shares no interpreter with what it measures."""

import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeVar

from bench.failure import BenchFailed
from bin.ending import die_with_parent

T = TypeVar("T")

# The processes are forked: starting a new interpreter for each would take longer than they run.
_FORK = multiprocessing.get_context("fork")
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is measured, by `time.monotonic()`, which is the same in all processes."""

    start: float
    end: float

    @classmethod
    def after(cls, warm_up: float, seconds: float) -> "Window":
        """Return a window of `seconds` that begins `warm_up` seconds from now."""
        start = time.monotonic() + warm_up
        return cls(start, start + seconds)

    def __contains__(self, moment: float) -> bool:
        return self.start <= moment < self.end

    @property
    def seconds(self) -> float:
        """The length of the window."""
        return self.end - self.start


def event() -> Event:
    """Make an event that this process shares with its loads."""
    return _FORK.Event()


def sleep_until(moment: float) -> None:
    """Sleep until that moment of `time.monotonic()`."""
    time.sleep(max(0.0, moment - time.monotonic()))


class Load(Generic[T]):
    """A function that runs in a process of its own. It is a context manager, whose end kills the process."""

    def __init__(self, function: Callable[..., T], *arguments: Any) -> None:
        self._receiver, sender = _FORK.Pipe(duplex=False)
        die_with_us = die_with_parent(signal.SIGKILL)
        self._process = _FORK.Process(
            target=_run, args=(die_with_us, sender, function, arguments), daemon=True
        )
        self._process.start()
        sender.close()

    def __enter__(self) -> "Load[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def check(self) -> None:
        """Raise BenchFailed if the function has failed already."""
        if self._receiver.poll(0):
            self.result(within=0)

    def result(self, *, within: float) -> T:
        """Wait at most `within` seconds for the function's result. Raises BenchFailed with the function's reason."""
        if not self._receiver.poll(within + _PATIENCE_SECONDS):
            raise BenchFailed("A load generator did not finish.")
        try:
            failure, value = self._receiver.recv()
        except EOFError:
            raise BenchFailed("A load generator ended without a word.") from None
        if failure is not None:
            raise BenchFailed(failure)
        result: T = value
        return result


def _run(
    die_with_us: Callable[[], None],
    sender: Any,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    die_with_us()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles a Ctrl-C
    try:
        sender.send((None, function(*arguments)))
    except (BenchFailed, OSError) as error:
        sender.send((str(error) or type(error).__name__, None))
