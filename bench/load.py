"""Lets clients call a web server from processes of their own, and measures times, CPU and memory."""

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from bench.figures import Json, latencies
from bench.http import Connection
from bin.ending import die_with_parent
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database, Web
from testing.processes.usage import cpu_seconds

if TYPE_CHECKING:
    from bench import prefect

T = TypeVar("T")

# The processes are forked: starting a new interpreter for each would take longer than they run.
_FORK = multiprocessing.get_context("fork")
_PATIENCE_SECONDS = 120.0
_WARM_UP_SECONDS = 1.5
# A short measurement, which only shows that there are figures, has a shorter warm-up: this share of it.
_MOST_OF_A_MEASUREMENT = 0.25


Served: TypeAlias = "Web | prefect.Server"


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is measured, by `time.monotonic()`, which is the same in all processes."""

    start: float
    end: float

    @classmethod
    def of(cls, seconds: float) -> "Window":
        """Return a window of `seconds` that begins after a warm-up, within which clients start and connect."""
        start = time.monotonic() + min(_WARM_UP_SECONDS, _MOST_OF_A_MEASUREMENT * seconds)
        return cls(start, start + seconds)

    def __contains__(self, moment: float) -> bool:
        return self.start <= moment < self.end

    @property
    def seconds(self) -> float:
        """The length of the window."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU seconds that the web server and PostgreSQL have used so far."""

    web: float
    postgres: float

    @classmethod
    def now(cls, on: Database, served: Served) -> "Cpu":
        return cls(served.cpu_seconds, cpu_seconds(on.pid))

    def since(self, earlier: "Cpu") -> "Cpu":
        """Return what both have used since `earlier`."""
        return Cpu(self.web - earlier.web, self.postgres - earlier.postgres)


@dataclass(slots=True)
class Measured:
    """What one client measured within its window."""

    lifecycles: list[float] = field(default_factory=list)  # the seconds of each
    calls: dict[str, list[float]] = field(default_factory=dict)
    # The CPU of the client's own process, which it takes from the machine.
    cpu_seconds: float = 0.0


def event() -> Event:
    """Make an event that this process shares with its loads."""
    return _FORK.Event()


def sleep_until(moment: float) -> None:
    """Sleep until that moment of `time.monotonic()`."""
    time.sleep(max(0.0, moment - time.monotonic()))


def allow_files(number: int) -> None:
    """Let this process and its children open `number` files. Raises ProcessFailed if the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise ProcessFailed(f"This needs {number} open files, and {hard} are allowed.")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


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
        """Raise ProcessFailed if the function has failed already."""
        if self._receiver.poll(0):
            self.result(within=0)

    def result(self, *, within: float) -> T:
        """Wait at most `within` seconds for the function's result. Raises ProcessFailed with the function's reason."""
        if not self._receiver.poll(within + _PATIENCE_SECONDS):
            raise ProcessFailed("A load generator did not finish.")
        try:
            failure, value = self._receiver.recv()
        except EOFError:
            raise ProcessFailed("A load generator ended without a word.") from None
        if failure is not None:
            raise ProcessFailed(failure)
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
    except (ProcessFailed, OSError) as error:
        sender.send((str(error) or type(error).__name__, None))


def keep_running(
    port: int, window: Window, run_once: Callable[[Connection], dict[str, float]]
) -> Measured:
    """Call `run_once`, which makes several calls and returns how long each took, until the window ends."""
    measured = Measured()
    cpu_before: float | None = None
    with Connection(port) as connection:
        while (began := time.monotonic()) < window.end:
            if cpu_before is None and began >= window.start:
                cpu_before = time.process_time()
            times = run_once(connection)
            ended = time.monotonic()
            if ended in window:
                measured.lifecycles.append(ended - began)
                for name, seconds in times.items():
                    measured.calls.setdefault(name, []).append(seconds)
    if cpu_before is not None:
        measured.cpu_seconds = time.process_time() - cpu_before
    return measured


def measure(
    drive: Callable[[int, Any, Window], Measured],
    on: Database,
    served: Served,
    clients: Sequence[Any],
    seconds: float,
) -> Json:
    """Run `drive(port, client, window)` for each client, each in a process of its own. Return the figures of lifecycles
    and of each call in them. Raises ProcessFailed if no lifecycle ended.
    """
    on.settle()
    window = Window.of(seconds)
    with ExitStack() as stack:
        loads = [
            stack.enter_context(Load(drive, served.port, client, window)) for client in clients
        ]
        sleep_until(window.start)
        before = Cpu.now(on, served)
        sleep_until(window.end)
        used, rss = Cpu.now(on, served).since(before), served.rss
        measured = [load.result(within=0) for load in loads]
    lifecycles = [each for one in measured for each in one.lifecycles]
    done = len(lifecycles)
    if not done:
        raise ProcessFailed("No lifecycle ended within the time: give it more --seconds.")
    names = {name: None for one in measured for name in one.calls}
    return {
        "lifecyclesPerSecond": round(done / seconds, 2),
        "lifecycle": latencies(lifecycles),
        "calls": {
            name: latencies([each for one in measured for each in one.calls.get(name, [])])
            for name in names
        },
        "webCpuMs": round(1000 * used.web / done, 3),
        "postgresCpuMs": round(1000 * used.postgres / done, 3),
        "loadCpuMs": round(1000 * sum(one.cpu_seconds for one in measured) / done, 3),
        "webRssMb": round(rss / 2**20, 1),
    }
