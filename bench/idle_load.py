"""The load of the idle benchmark: workers that wait in a poll, and a client that calls beside them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event

from bench.async_client import AsyncConnection
from bench.cast import Pair
from bench.failure import BenchFailed
from bench.http_client import Answer, Connection, check, request
from bench.load import Window

WAIT_SECONDS = 30
# The pause between two requests of the client that calls while workers wait.
_PROBE_PAUSE_SECONDS = 0.05
_WAKE_SECONDS = 60.0
# How many connections open at once. More than the server's backlog holds would only have to try again.
_CONNECT_TOGETHER = 50


@dataclass(slots=True)
class Woken:
    """The times of the runs that were queued in turn, in seconds since the request for each was sent."""

    created: list[float] = field(default_factory=list)  # when that request was answered
    handed_out: list[float] = field(default_factory=list)  # when its worker had the run


def wait_and_wake(port: int, pairs: Sequence[Pair], wake: Event) -> Woken:
    """Let the pairs' workers wait in polls. Once `wake` is set, queue a run for each in turn.

    A worker that gets its run claims it, completes it and polls again.
    """
    return asyncio.run(_wait_and_wake(port, pairs, wake))


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


async def _wait_and_wake(port: int, pairs: Sequence[Pair], wake: Event) -> Woken:
    waiters = [_Waiter(pair) for pair in pairs]
    for start in range(0, len(waiters), _CONNECT_TOGETHER):
        group = waiters[start : start + _CONNECT_TOGETHER]
        await asyncio.gather(*(waiter.connect(port) for waiter in group))
    tasks = [asyncio.create_task(waiter.work()) for waiter in waiters]
    waking = asyncio.create_task(_wake_in_turn(port, waiters, wake))
    try:
        done, _ = await asyncio.wait([waking, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if waking not in done:
            next(iter(done)).result()  # raises what went wrong: a waiter ends only if it fails
        return waking.result()
    finally:
        for task in (waking, *tasks):
            task.cancel()
        await asyncio.gather(waking, *tasks, return_exceptions=True)


async def _wake_in_turn(port: int, waiters: Sequence["_Waiter"], wake: Event) -> Woken:
    woken = Woken()
    while not wake.is_set():
        await asyncio.sleep(0.05)
    # This connection opens only now, since the server closes connections that are idle for long.
    client = await AsyncConnection.open(port)
    for waiter in waiters:
        path = f"/triggers/{waiter.pair.trigger_id}/run"
        sent = request("POST", path, token=waiter.pair.api_key)
        began = time.monotonic()
        run_id = check(sent, await client.exchange(sent)).json()["id"]
        woken.created.append(time.monotonic() - began)
        woken.handed_out.append(await waiter.has_run(run_id) - began)
    return woken


class _Waiter:
    """A worker that waits in a poll until it gets a run."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._connection: AsyncConnection
        # The id of the run that it got, and when it got it.
        self._got: asyncio.Future[tuple[str, float]] = asyncio.Future()
        self._finished = asyncio.Event()

    async def connect(self, port: int) -> None:
        """Connect to the server."""
        self._connection = await AsyncConnection.open(port)

    async def has_run(self, run_id: str) -> float:
        """Wait until the worker has completed the run, and return when it got it, by `time.monotonic()`."""
        try:
            async with asyncio.timeout(_WAKE_SECONDS):
                got, at = await self._got
                await self._finished.wait()
        except TimeoutError:
            raise BenchFailed(
                f"A worker did not finish its run in {_WAKE_SECONDS:.0f} s."
            ) from None
        if got != run_id:
            raise BenchFailed(f"A worker should have got run {run_id}, and got another.")
        return at

    async def work(self) -> None:
        """Poll again and again, and execute the runs that come. Never returns; raises BenchFailed."""
        while True:
            runs = (await self._call("GET", f"/poll?wait={WAIT_SECONDS}")).json()["runs"]
            now = time.monotonic()
            if runs:
                run_id = runs[0]["id"]
                self._got.set_result((run_id, now))
                await self._call("POST", f"/runs/{run_id}/claim", {"claimId": "bench"})
                await self._call("POST", f"/runs/{run_id}/complete", {"status": "succeeded"})
                self._finished.set()

    async def _call(self, method: str, path: str, body: object = None) -> Answer:
        path = f"/workers/{self.pair.worker_id}{path}"
        sent = request(method, path, token=self.pair.worker_token, body=body)
        return check(sent, await self._connection.exchange(sent))
