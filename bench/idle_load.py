"""The load of the idle benchmark: workers that wait in a poll, and a client that calls beside them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Event

from bench.async_client import AsyncConnection
from bench.cast import Pair
from bench.failure import BenchFailed
from bench.http_client import Answer, Connection, check, request
from bench.lifecycle_load import CONFLICT
from bench.load import Window

WAIT_SECONDS = 30
# The pause between two requests of the client that calls while workers wait.
_PROBE_PAUSE_SECONDS = 0.05
_WAKE_SECONDS = 60.0
# How many runs of a pool are queued, and the pause after each.
RUNS_OF_POOL = 100
_POOL_PAUSE_SECONDS = 0.1
# How many connections open at once. More than the server's backlog holds would only have to try again.
_CONNECT_TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Taken:
    """A run that a worker has done. The times are by `time.monotonic()`: when the run was asked for, and handed out."""

    run_id: str
    worker_id: str
    asked_at: float
    got_at: float


@dataclass(slots=True)
class Woken:
    """The times of the runs that were queued in turn, in seconds since the request for each was sent."""

    created: list[float] = field(default_factory=list)  # when that request was answered
    handed_out: list[float] = field(default_factory=list)  # when its worker had the run
    taken: list["Taken"] = field(default_factory=list)


def wait_and_wake(port: int, pairs: Sequence[Pair], wake: Event, pool: bool = False) -> Woken:
    """Let the pairs' workers wait in polls. Once `wake` is set, queue a run for each in turn.

    A worker that gets a run claims it, completes it and polls again. In a `pool`, any worker may get each run, and at
    most RUNS_OF_POOL are queued, with a pause after each, in which polls show that were woken for nothing.
    """
    return asyncio.run(_wait_and_wake(port, pairs, wake, pool))


def probe(port: int, pair: Pair, stop: Event) -> list[tuple[float, float]]:
    """Read a trigger again and again until `stop` is set. Return when each read began, and its seconds."""
    sent = request("GET", f"/triggers/{pair.trigger_id}", token=pair.api_key)
    times = []
    with Connection(port) as connection:
        while not stop.is_set():
            began = time.monotonic()
            check(sent, connection.exchange(sent))
            times.append((began, time.monotonic() - began))
            stop.wait(_PROBE_PAUSE_SECONDS)
    return times


def within(times: Sequence[tuple[float, float]], window: Window) -> list[float]:
    """Return the seconds of the calls that began within the window."""
    return [seconds for began, seconds in times if began in window]


async def _wait_and_wake(port: int, pairs: Sequence[Pair], wake: Event, pool: bool) -> Woken:
    finished: asyncio.Queue[Taken] = asyncio.Queue()
    waiters = [_Waiter(pair, finished) for pair in pairs]
    for start in range(0, len(waiters), _CONNECT_TOGETHER):
        group = waiters[start : start + _CONNECT_TOGETHER]
        await asyncio.gather(*(waiter.connect(port) for waiter in group))
    tasks = [asyncio.create_task(waiter.work()) for waiter in waiters]
    waking = asyncio.create_task(_wake_in_turn(port, pairs, wake, finished, pool))
    try:
        done, _ = await asyncio.wait([waking, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if waking not in done:
            next(iter(done)).result()  # raises what went wrong: a waiter ends only if it fails
        return waking.result()
    finally:
        for task in (waking, *tasks):
            task.cancel()
        await asyncio.gather(waking, *tasks, return_exceptions=True)


async def _wake_in_turn(
    port: int, pairs: Sequence[Pair], wake: Event, finished: "asyncio.Queue[Taken]", pool: bool
) -> Woken:
    woken = Woken()
    while not wake.is_set():
        await asyncio.sleep(0.05)
    # This connection opens only now, since the server closes connections that are idle for long.
    client = await AsyncConnection.open(port)
    for pair in pairs[:RUNS_OF_POOL] if pool else pairs:
        sent = request("POST", f"/triggers/{pair.trigger_id}/run", token=pair.api_key)
        began = time.monotonic()
        run_id = check(sent, await client.exchange(sent)).json()["id"]
        woken.created.append(time.monotonic() - began)
        done = await _next(finished)
        if done.run_id != run_id or not (pool or done.worker_id == pair.worker_id):
            raise BenchFailed(f"Run {run_id} was queued, and {done} was done.")
        woken.handed_out.append(done.got_at - began)
        woken.taken.append(replace(done, asked_at=began))
        if pool:
            await asyncio.sleep(_POOL_PAUSE_SECONDS)
    return woken


async def _next(finished: "asyncio.Queue[Taken]") -> Taken:
    try:
        async with asyncio.timeout(_WAKE_SECONDS):
            return await finished.get()
    except TimeoutError:
        raise BenchFailed(f"No worker finished a run in {_WAKE_SECONDS:.0f} s.") from None


class _Waiter:
    """A worker that waits in a poll until it gets a run. It puts each run that it has done into `finished`."""

    def __init__(self, pair: Pair, finished: "asyncio.Queue[Taken]") -> None:
        self.pair = pair
        self._connection: AsyncConnection
        self._finished = finished

    async def connect(self, port: int) -> None:
        """Connect to the server."""
        self._connection = await AsyncConnection.open(port)

    async def work(self) -> None:
        """Poll again and again, and execute the runs that come. Never returns; raises BenchFailed."""
        while True:
            runs = check(*await self._call("GET", f"/poll?wait={WAIT_SECONDS}")).json()["runs"]
            now = time.monotonic()
            if runs and await self._claim(run_id := runs[0]["id"]):
                path, outcome = f"/runs/{run_id}/complete", {"status": "succeeded"}
                check(*await self._call("POST", path, outcome))
                self._finished.put_nowait(Taken(run_id, self.pair.worker_id, now, now))

    async def _claim(self, run_id: str) -> bool:
        """Claim a run. Returns False if another worker of the pool has claimed it."""
        sent, answer = await self._call("POST", f"/runs/{run_id}/claim", {"claimId": "bench"})
        return answer.status != CONFLICT and bool(check(sent, answer))

    async def _call(self, method: str, path: str, body: object = None) -> tuple[bytes, Answer]:
        path = f"/workers/{self.pair.worker_id}{path}"
        sent = request(method, path, token=self.pair.worker_token, body=body)
        return sent, await self._connection.exchange(sent)
