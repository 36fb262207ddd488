"""One client of the lifecycle benchmark: it fires its trigger, and acts as the worker of the run."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.cast import Pair
from bench.failure import BenchFailed
from bench.http_client import Answer, Connection, check, request
from bench.load import Window

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
    # The CPU of the client's own process, which it takes from the machine.
    cpu_seconds: float = 0.0


def drive(port: int, pair: Pair, window: Window) -> Measured:
    """Run one lifecycle after another until the window ends. It finishes the last one after that."""
    return keep_running(port, window, lambda connection: _run_once(connection, pair))


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
    times: dict[str, float] = {}

    def timed(name: str, sent: bytes) -> Answer:
        began = time.monotonic()
        answer = connection.exchange(sent)
        times[name] = time.monotonic() - began
        return check(sent, answer)

    worker = _calls_of(pair, timed)
    fired = request("POST", f"/triggers/{pair.trigger_id}/run", token=pair.api_key)
    run_id = timed("create", fired).json()["id"]
    run, claim = f"/workers/{pair.worker_id}/runs/{run_id}", {"claimId": f"bench-{os.getpid()}"}
    if short:
        path = f"/workers/{pair.worker_id}/claim-next"
        taken = worker("claim-next", "POST", path, {**claim, "start": True}).json()["run"] or {}
        if (taken.get("id"), taken.get("status")) != (run_id, "running"):
            raise BenchFailed(f"claim-next should have started run {run_id}, and did not.")
    else:
        handed_out = worker("poll", "GET", f"/workers/{pair.worker_id}/poll").json()["runs"]
        if [each["id"] for each in handed_out] != [run_id]:
            raise BenchFailed(f"A poll should have handed out run {run_id}, and handed out others.")
        worker("claim", "POST", f"{run}/claim", claim)
        worker("start", "POST", f"{run}/start", {})
    worker("heartbeat", "POST", f"{run}/heartbeat", {})
    ended = worker("complete", "POST", f"{run}/complete", OUTCOME).json()
    if ended["status"] != "succeeded":
        raise BenchFailed(f"Run {run_id} should have succeeded, and is {ended['status']}.")
    return times


def _calls_of(pair: Pair, timed: Callable[[str, bytes], Answer]) -> Callable[..., Answer]:
    """Return a function that makes the calls of the pair's worker."""

    def call(name: str, method: str, path: str, body: object = None) -> Answer:
        return timed(name, request(method, path, token=pair.worker_token, body=body))

    return call
