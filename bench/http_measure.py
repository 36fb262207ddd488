"""Lets many clients call a web server at once, and measures times, CPU and memory."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from bench.failure import BenchFailed
from bench.figures import Json, latencies, print_table
from bench.lifecycle_load import Measured
from bench.load import Load, Window, sleep_until
from bench.stack import Database
from bench.usage import Cpu, cpu_seconds

T = TypeVar("T")


class Served(Protocol):
    """A web server that clients can call and whose use of CPU and memory can be read."""

    port: int

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds that all its processes have used so far."""

    @property
    def rss(self) -> int:
        """The resident memory of all its processes, in bytes."""


_WARM_UP_SECONDS = 1.5
# A short measurement, which only shows that there are figures, has a shorter warm-up: this share of it.
_MOST_OF_A_MEASUREMENT = 0.25


def warm_up_of(seconds: float) -> float:
    """Return the seconds of warm-up before a measurement of `seconds`. The clients also start and connect within it."""
    return min(_WARM_UP_SECONDS, _MOST_OF_A_MEASUREMENT * seconds)


@dataclass(frozen=True, slots=True)
class Used(Generic[T]):
    """What each client measured, and what the web server and PostgreSQL used within the window."""

    measured: list[T]
    cpu: Cpu
    rss: int


def drive_all(
    drive: Callable[..., T], on: Database, served: Served, clients: Sequence[Any], seconds: float
) -> Used[T]:
    """Run `drive(port, client, window)` for each client, each in a process of its own."""
    window = Window.after(warm_up_of(seconds), seconds)
    with ExitStack() as stack:
        loads: list[Load[T]] = [
            stack.enter_context(Load(drive, served.port, client, window)) for client in clients
        ]
        sleep_until(window.start)
        before = cpu(on, served)
        sleep_until(window.end)
        used, rss = cpu(on, served).since(before), served.rss
        return Used([load.result(within=0) for load in loads], used, rss)


def lifecycle_figures(used: Used[Measured], seconds: float) -> Json:
    """Return the figures of lifecycles and of each call in them. Raises BenchFailed if no lifecycle ended."""
    lifecycles = [each for one in used.measured for each in one.lifecycles]
    if not lifecycles:
        raise BenchFailed("No lifecycle ended within the time: give it more --seconds.")
    done = len(lifecycles)
    names = {name: None for one in used.measured for name in one.calls}
    return {
        "lifecyclesPerSecond": round(done / seconds, 2),
        "lifecycle": latencies(lifecycles),
        "calls": {
            name: latencies([each for one in used.measured for each in one.calls.get(name, [])])
            for name in names
        },
        "webCpuMs": round(1000 * used.cpu.web / done, 3),
        "postgresCpuMs": round(1000 * used.cpu.postgres / done, 3),
        "loadCpuMs": round(1000 * sum(one.cpu_seconds for one in used.measured) / done, 3),
        "webRssMb": round(used.rss / 2**20, 1),
    }


def cpu(on: Database, served: Served) -> Cpu:
    """Return what the web server and PostgreSQL have used so far."""
    return Cpu(served.cpu_seconds, cpu_seconds(on.pid))


def show_calls(head: str, names: Sequence[str], at: Mapping[int, Json]) -> None:
    """Print the latencies of each call. `at` has the figures of lifecycles for each number of clients."""
    heads = [head]
    for count in at:
        heads += [f"p50 ms at {count}", f"p99 ms at {count}"]
    rows = []
    for name in names:
        figures = [each["calls"][name] for each in at.values()]
        rows.append([name, *(f[key] for f in figures for key in ("p50Ms", "p99Ms"))])
    print_table(heads, rows)
    print()
