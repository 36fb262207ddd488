"""The neighbour's normal work: acts at a steady rate, each of which begins when it is due, even if others wait.

So if the service answers nobody for a while, every call that was due meanwhile is late, and not only one.
"""

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from multiprocessing.synchronize import Event

from bench.abuse.calling import Calls, GaveUp
from bench.abuse.hooks import Hooks
from bench.abuse.tenants import Neighbour
from bench.abuse.timed import Timed
from bench.cast import Pair
from bench.http_client import request
from bench.lifecycle_load import OUTCOME

WAKE_UP, LOGIN, LIVE = "wake-up", "login", "live"

_WAIT_SECONDS = 30
_LOOK_SECONDS = 0.05
# How many seconds a worker waits after a failed call before it polls again.
_PAUSE_SECONDS = 0.5

_Act = Callable[[float], Awaitable[None]]


def live(port: int, neighbour: Neighbour, stop: Event) -> list[Timed]:
    """Work until `stop` is set, finish what is under way, and return how long each thing took."""
    return asyncio.run(_Life(port, neighbour).until(stop))


class _Life:
    def __init__(self, port: int, neighbour: Neighbour) -> None:
        self._neighbour = neighbour
        self._address = neighbour.people[0].address
        self._calls = Calls(port)
        self._hooks = Hooks(neighbour.hooks_port)
        self._idle: asyncio.Queue[Pair] = asyncio.Queue()
        self._waiting: asyncio.Queue[Pair] = asyncio.Queue()
        self._handed_out: defaultdict[str, asyncio.Future[float]] = defaultdict(asyncio.Future)
        self._people = itertools.cycle(neighbour.people)
        self._events = neighbour.source.requests(self._address)

    async def until(self, stop: Event) -> list[Timed]:
        """Work until `stop` is set, and return everything that was due."""
        # How often a second each act begins. Together they make about 22 calls a second; a lifecycle has six.
        rhythm: dict[_Act, float] = {
            self._lifecycle: 1.5,
            self._wake_up: 1.0,
            self._read_list: 2.0,
            self._read_overview: 1.0,
            self._probe("health", "/health"): 1.0,
            self._probe(LIVE, "/health/live"): 4.0,
            self._log_in: 0.4,
            self._send_event: 2.0,
        }
        for pair in self._neighbour.working:
            self._idle.put_nowait(pair)
        acts: set[asyncio.Task[None]] = set()
        async with self._hooks.received():
            waiters = [asyncio.create_task(self._wait(pair)) for pair in self._neighbour.waiting]
            begin = time.monotonic()
            beats = [
                asyncio.create_task(keep_time(act, begin + n / len(rhythm), 1 / rate, acts))
                for n, (act, rate) in enumerate(rhythm.items())
            ]
            while not stop.is_set():
                await asyncio.sleep(_LOOK_SECONDS)
            for beat in beats:
                beat.cancel()
            # Each act ends by itself, since no call is waited for longer than a client's patience.
            await asyncio.gather(*acts)
            await self._hooks.all_received()
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*beats, *waiters, return_exceptions=True)
        return [*self._calls.timed, *self._hooks.timed()]

    async def _lifecycle(self, due: float) -> None:
        pair = await self._idle.get()
        try:
            run_id = await self._create(pair, due)
            work = self._worker(pair)
            await work("poll", "GET", "/poll")
            await work("claim", "POST", f"/runs/{run_id}/claim", {"claimId": "bench"})
            await work("start", "POST", f"/runs/{run_id}/start", {})
            await work("heartbeat", "POST", f"/runs/{run_id}/heartbeat", {})
            await work("complete", "POST", f"/runs/{run_id}/complete", OUTCOME)
            self._hooks.expect(run_id)
        finally:
            self._idle.put_nowait(pair)

    async def _wake_up(self, due: float) -> None:
        """Queue a run for a worker that waits in a poll, and note how long until the poll answers with it."""
        pair = await self._waiting.get()
        try:
            run_id = await self._create(pair, due)
            await self._calls.timing(WAKE_UP, due, self._handed_out[run_id])
        finally:
            self._waiting.put_nowait(pair)

    async def _wait(self, pair: Pair) -> None:
        """Act as the worker of a pair that `_wake_up` uses: wait in polls, and complete each run that comes."""
        path = f"/workers/{pair.worker_id}/poll?wait={_WAIT_SECONDS}"
        sent = request("GET", path, token=pair.worker_token, address=self._address)
        self._waiting.put_nowait(pair)
        work = self._worker(pair)
        while True:
            answer = await self._calls.answer(sent)
            now = time.monotonic()
            if answer is None or answer.status != 200:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            for run in answer.json()["runs"]:
                handed_out = self._handed_out[run["id"]]
                if not handed_out.done():
                    handed_out.set_result(now)
                try:
                    await work("claim", "POST", f"/runs/{run['id']}/claim", {"claimId": "bench"})
                    await work("complete", "POST", f"/runs/{run['id']}/complete", OUTCOME)
                except GaveUp:  # the next poll hands the run out again
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _create(self, pair: Pair, due: float) -> str:
        path = f"/triggers/{pair.trigger_id}/run"
        sent = request("POST", path, token=pair.api_key, address=self._address)
        return str((await self._calls.call("create", due, sent)).json()["id"])

    def _worker(self, pair: Pair) -> Callable[..., Awaitable[None]]:
        """Return a function that makes the worker's calls. Each is due when the one before it was answered."""

        async def work(kind: str, method: str, path: str, body: object = None) -> None:
            path = f"/workers/{pair.worker_id}{path}"
            sent = request(method, path, token=pair.worker_token, address=self._address, body=body)
            await self._calls.call(kind, time.monotonic(), sent)

        return work

    async def _read_list(self, due: float) -> None:
        await self._read("list", due, "runs?limit=50")

    async def _read_overview(self, due: float) -> None:
        await self._read("overview", due, "dashboard/overview")

    async def _read(self, kind: str, due: float, what: str) -> None:
        person = self._neighbour.people[0]
        path = f"/environments/{self._neighbour.environment_id}/{what}"
        sent = request("GET", path, cookie=person.cookie, address=person.address)
        await self._calls.call(kind, due, sent)

    async def _log_in(self, due: float) -> None:
        person = next(self._people)
        body = {"email": person.email, "password": person.password}
        sent = request("POST", "/auth/login", address=person.address, body=body)
        await self._calls.call(LOGIN, due, sent)

    async def _send_event(self, due: float) -> None:
        await self._calls.call("event", due, next(self._events))

    def _probe(self, kind: str, path: str) -> _Act:
        sent = request("GET", path, address=self._address)

        async def probe(due: float) -> None:
            await self._calls.call(kind, due, sent)

        return probe


async def keep_time(act: _Act, begin: float, period: float, acts: set[asyncio.Task[None]]) -> None:
    """Begin the act at each of its moments. A call that fails has been noted by then."""
    for n in itertools.count():
        due = begin + n * period
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(_forgive(act(due)))
        acts.add(task)
        task.add_done_callback(acts.discard)


async def _forgive(act: Awaitable[None]) -> None:
    with contextlib.suppress(GaveUp):
        await act
