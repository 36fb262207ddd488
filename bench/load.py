"""Runs the load in processes of its own, so that it and what it measures share no interpreter."""

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

# Forked, since a fresh interpreter each would take longer to start than they run.
_FORK = multiprocessing.get_context("fork")
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of time that is measured, by `time.monotonic()`, which all processes share."""

    start: float
    end: float

    @classmethod
    def after(cls, warm_up: float, seconds: float) -> "Window":
        """A window that begins after the warm-up, in seconds from now."""
        start = time.monotonic() + warm_up
        return cls(start, start + seconds)

    def __contains__(self, moment: float) -> bool:
        return self.start <= moment < self.end

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


def event() -> Event:
    """An event that this process and its loads share."""
    return _FORK.Event()


def sleep_until(moment: float) -> None:
    """Return at that moment of `time.monotonic()`."""
    time.sleep(max(0.0, moment - time.monotonic()))


class Load(Generic[T]):
    """A function that runs in a process of its own. A context manager: at its end it is no more."""

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
        """What the function returned, within so many seconds. Raises BenchFailed with its reason."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    try:
        sender.send((None, function(*arguments)))
    except (BenchFailed, OSError) as error:
        sender.send((str(error) or type(error).__name__, None))
