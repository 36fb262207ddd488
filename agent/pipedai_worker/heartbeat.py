"""Renews one run's lease while the run is executed; the API's answers say whether to stop the run."""

from __future__ import annotations

import threading
from typing import Any

from pipedai_worker.answers import Refused, TokenRefused, Unanswered
from pipedai_worker.api import Api
from pipedai_worker.background import run_in_background
from pipedai_worker.backoff import Backoff
from pipedai_worker.stopping import StopReason, StopRequest

# Two heartbeats in a row may fail, and the third still comes before the lease ends.
BEATS_PER_LEASE = 3
# These bounds hold for a lease of any length, because only a heartbeat tells the worker of a cancel.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 20.0


class Heartbeat:
    """A context manager whose thread sends heartbeats from entry to exit, and the first one at once."""

    def __init__(self, api: Api, run_id: str, stop: StopRequest) -> None:
        self._api = api
        self._run_id = run_id
        self._stop = stop
        self._ended = threading.Event()
        self._interval = LONGEST_SECONDS

    def __enter__(self) -> Heartbeat:
        run_in_background(f"heartbeat {self._run_id}", self._beat)
        return self

    def __exit__(self, *_: object) -> None:
        # The thread is not joined: it may be waiting for a slow answer, which no longer matters.
        self._ended.set()

    def _beat(self) -> None:
        backoff = Backoff()
        delay = 0.0
        while not self._ended.wait(delay):
            try:
                answer = self._api.heartbeat(self._run_id)
            except Unanswered as error:
                delay = min(backoff.next_delay(error.retry_after), self._interval)
            except TokenRefused:
                self._stop.request(StopReason.TOKEN_REFUSED)
                return
            except Refused:
                self._stop.request(StopReason.LOST)
                return
            else:
                backoff.reset()
                delay = self._interval = self._next_interval(answer)
                if answer.get("cancelRequested"):
                    self._stop.request(StopReason.CANCELED)

    def _next_interval(self, answer: dict[str, Any]) -> float:
        left = self._api.seconds_until(answer.get("leaseExpiresAt"))
        if left is None:
            return self._interval
        return min(max(left / BEATS_PER_LEASE, SHORTEST_SECONDS), LONGEST_SECONDS)
