"""Remembers which runs were just offered to workers of pools, so that other workers are offered different ones."""

import time
from collections.abc import Callable, Collection
from functools import lru_cache
from threading import Lock
from typing import NamedTuple
from uuid import UUID

# For how many seconds a run counts as offered. A worker claims what it was offered within milliseconds, but a busy
# service may take a second to answer both calls.
_COUNTS_FOR = 2.0
# How many seconds later a run may count as offered again, so that workers that poll and never claim can't keep a run
# from the others for long.
_AGAIN_AFTER = 60.0
# How many offers of an environment are remembered, and of how many environments, so that they take little memory.
_MOST, _ENVIRONMENTS = 1_000, 1_000


class _Offer(NamedTuple):
    worker_id: UUID
    at: float


class Offers:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        # The oldest offer is first.
        self._offers: dict[UUID, _Offer] = {}

    def to_others(self, worker_id: UUID) -> list[UUID]:
        with self._lock:
            return self._to_others(worker_id)

    def add(self, worker_id: UUID, run_ids: Collection[UUID], *, besides: Collection[UUID]) -> bool:
        """Remembers these offers, but for `besides`. Returns False, and does nothing, if another worker has one."""
        new = {*run_ids}.difference(besides)
        with self._lock:
            if not new.isdisjoint(self._to_others(worker_id)):
                return False
            now = self._clock()
            for run_id in new:
                before = self._offers.get(run_id)
                if before is None or before.at < now - _AGAIN_AFTER:
                    self._offers.pop(run_id, None)
                    self._offers[run_id] = _Offer(worker_id, now)
            for oldest in list(self._offers)[:-_MOST]:
                del self._offers[oldest]
        return True

    def _to_others(self, worker_id: UUID) -> list[UUID]:
        since = self._clock() - _COUNTS_FOR
        found = []
        for run_id, offer in reversed(self._offers.items()):
            if offer.at < since:
                break
            if offer.worker_id != worker_id:
                found.append(run_id)
        return found


@lru_cache(_ENVIRONMENTS)
def offers_of(_environment_id: UUID) -> Offers:
    return Offers()
