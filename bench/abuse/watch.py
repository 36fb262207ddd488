"""Measures a stretch of time: its begin and end, the web process's memory, and the CPU used."""

import statistics
import time
from dataclasses import dataclass

import psutil

from bench.failure import BenchFailed
from bench.http_measure import cpu
from bench.load import Window
from bench.stack import Database, Web
from bench.usage import Cpu

# How often memory is read, in seconds: often enough to see the memory of a single password hash.
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time. Memory is the web process's, in bytes; CPU is in seconds."""

    window: Window
    usual_rss: float  # the median
    peak_rss: int
    cpu: Cpu


def watch(on: Database, served: Web, seconds: float) -> Stretch:
    """Measure for so many seconds. Raises BenchFailed if the web process dies meanwhile."""
    processes = psutil.Process(served.pid).children()
    before, sizes, start = cpu(on, served), [], time.monotonic()
    while time.monotonic() < start + seconds:
        try:
            sizes.append(sum(process.memory_info().rss for process in processes))
        except psutil.NoSuchProcess:
            raise BenchFailed("The web process has died.") from None
        time.sleep(_LOOK_SECONDS)
    window = Window(start, time.monotonic())
    return Stretch(window, statistics.median(sizes), max(sizes), cpu(on, served).since(before))
