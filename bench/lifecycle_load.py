"""One client of the lifecycle benchmark: it fires its trigger, and acts as the worker of a run."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.cast import Pair
from bench.failure import BenchFailed
from bench.http_client import Answer, Connection, check, request
from bench.load import Window

OK, CONFLICT = 200, 409
CALLS = ("create", "poll", "claim", "start", "heartbeat", "complete")
# The same lifecycle by `claim-next`, which polls, claims and starts in one call.
SHORT_CALLS = ("create", "claim-next", "heartbeat", "complete")

OUTCOME = {
    "status": "succeeded",
    "exitCode": 0,
    "shortMessage": "Three tickets need an answer first: 4711, 4712 and 4720.",
    "inputTokens": 5120,
    "outputTokens": 640,
    "cacheReadTokens": 2048,
    "cacheCreationTokens": 512,
    "costUsd": "0.0215",
    "numTurns": 4,
    "sessionId": "0e9d7c52-7c3e-4f0a-9a55-0b8f3c1f2d11",
    "model": "sonnet",
}


@dataclass(slots=True)
class Measured:
    """What one client measured within its window."""

    lifecycles: list[float] = field(default_factory=list)  # the seconds of each
    calls: dict[str, list[float]] = field(default_factory=dict)
    # In a pool: how many claims the client made, and how many of these another worker had won. The warm-up counts, too.
    claims: int = 0
    lost_claims: int = 0
    # The CPU of the client's own process, which it takes from the machine.
    cpu_seconds: float = 0.0


def drive(port: int, pair: Pair, window: Window) -> Measured:
    """Run one lifecycle after another until the window ends. It finishes the last one after that."""
    return keep_running(port, window, lambda connection: _run_once(connection, pair))


def drive_in_pool(port: int, pair: Pair, window: Window) -> Measured:
    """Do the same as a worker of a pool, whose workers are offered the same runs. Each run is one of any client's."""
    client = _ClientOfPool(pair)
    measured = keep_running(port, window, client.run_once)
    measured.claims, measured.lost_claims = client.claims, client.lost_claims
    return measured


def drive_short(port: int, pair: Pair, window: Window) -> Measured:
    """Run lifecycles as `drive` does, by the short protocol."""
    return keep_running(port, window, lambda connection: _run_once(connection, pair, short=True))


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


def _run_once(connection: Connection, pair: Pair, *, short: bool = False) -> dict[str, float]:
    """Run one lifecycle, and return the seconds of each call. Raises BenchFailed if anything is wrong."""
    calls = _Calls(connection, pair)
    run_id = calls.create()
    if short:
        body = {**_claim(), "start": True}
        taken = calls.check("claim-next", "POST", "/claim-next", body).json()["run"] or {}
        if (taken.get("id"), taken.get("status")) != (run_id, "running"):
            raise BenchFailed(f"claim-next should have started run {run_id}, and did not.")
    else:
        handed_out = calls.poll()
        if handed_out != [run_id]:
            raise BenchFailed(f"A poll should have handed out run {run_id}, and handed out others.")
        calls.check("claim", "POST", f"/runs/{run_id}/claim", _claim())
        calls.start(run_id)
    calls.finish(run_id)
    return calls.times


class _ClientOfPool:
    """A client whose trigger and worker are those of a pool. It counts its claims."""

    def __init__(self, pair: Pair) -> None:
        self.claims = self.lost_claims = 0
        self._pair = pair

    def run_once(self, connection: Connection) -> dict[str, float]:
        """Queue a run, and do one run of the pool. Return the seconds of each call.

        All workers of the pool that poll at the same moment are offered the oldest run. Those that lose it poll again.
        """
        calls = _Calls(connection, self._pair)
        calls.create()
        while (run_id := self._claim_one(calls)) is None:
            self.lost_claims += 1
        calls.start(run_id)
        calls.finish(run_id)
        return calls.times

    def _claim_one(self, calls: "_Calls") -> str | None:
        # Each client has queued a run before it polls, so there is one for each client that polls.
        run_id, *_ = calls.poll()
        self.claims += 1
        answer = calls.send("claim", "POST", f"/runs/{run_id}/claim", _claim())
        if answer.status == CONFLICT:
            return None
        if answer.status != OK:
            raise BenchFailed(f"A claim was answered {answer.status}: {answer.body[:300].decode()}")
        return run_id


def _claim() -> dict[str, str]:
    return {"claimId": f"bench-{os.getpid()}"}


class _Calls:
    """The calls of one lifecycle. `times` has the seconds of each, added up where a call is repeated."""

    def __init__(self, connection: Connection, pair: Pair) -> None:
        self.times: dict[str, float] = {}
        self._connection = connection
        self._pair = pair

    def create(self) -> str:
        """Queue a run of the pair's trigger, and return its id."""
        sent = request("POST", f"/triggers/{self._pair.trigger_id}/run", token=self._pair.api_key)
        return str(check(sent, self._timed("create", sent)).json()["id"])

    def poll(self) -> list[str]:
        """Return the ids of the runs that the worker is offered."""
        return [run["id"] for run in self.check("poll", "GET", "/poll").json()["runs"]]

    def start(self, run_id: str) -> None:
        """Start a claimed run."""
        self.check("start", "POST", f"/runs/{run_id}/start", {})

    def finish(self, run_id: str) -> None:
        """Send a heartbeat of a started run, and complete the run."""
        run = f"/runs/{run_id}"
        self.check("heartbeat", "POST", f"{run}/heartbeat", {})
        ended = self.check("complete", "POST", f"{run}/complete", OUTCOME).json()
        if ended["status"] != "succeeded":
            raise BenchFailed(f"Run {run_id} should have succeeded, and is {ended['status']}.")

    def check(self, name: str, method: str, path: str, body: object = None) -> Answer:
        """Make a call as the pair's worker. Raises BenchFailed unless it succeeds."""
        sent = self._request(method, path, body)
        return check(sent, self._timed(name, sent))

    def send(self, name: str, method: str, path: str, body: object = None) -> Answer:
        """Make a call as the pair's worker, and return its answer, whatever the status."""
        return self._timed(name, self._request(method, path, body))

    def _request(self, method: str, path: str, body: object) -> bytes:
        path = f"/workers/{self._pair.worker_id}{path}"
        return request(method, path, token=self._pair.worker_token, body=body)

    def _timed(self, name: str, sent: bytes) -> Answer:
        began = time.monotonic()
        answer = self._connection.exchange(sent)
        self.times[name] = self.times.get(name, 0.0) + time.monotonic() - began
        return answer
