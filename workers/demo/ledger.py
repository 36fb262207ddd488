"""Fills the demo workspace with a made-up year of runs, one slice of it in each transaction.

A slice depends only on the seed and its number, so that an interrupted command can go on.
"""

import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import accumulate
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from pipedai.events import SYSTEM, Event, emit
from pipedai.sql import Row, fetch_one
from pipedai.timeouts import session_without_timeouts
from triggers.models import Run, Trigger
from triggers.states import Source
from workers.demo.cast import lock_demo
from workers.demo.copying import copy_slice
from workers.demo.size import SPAN, Size, ticks_between
from workers.demo.story import Capacity, Ids, Storyteller
from workers.models import Worker
from workspaces.models import ApiKey, Workspace

_RUNS_OF_A_SLICE = 8000
# The share of due times at which a schedule starts no run because the trigger's previous run has not ended.
_SKIPPED = 0.01


class Ledger:
    """Makes the past runs of one demo workspace, whose users, workers and triggers are there already."""

    def __init__(self, size: Size, workspace: Workspace) -> None:
        self.size, self.workspace = size, workspace
        self._until = workspace.created_at.timestamp()
        self._began = self._until - SPAN.total_seconds()
        of_it = {"environment__workspace": workspace}
        triggers = Trigger.objects.filter(**of_it).select_related("revision").order_by("id")
        self._scheduled = [trigger for trigger in triggers if trigger.schedule]
        self._others = [trigger for trigger in triggers if not trigger.schedule]
        self._environments = sorted({trigger.environment_id for trigger in triggers})
        keys = ApiKey.objects.filter(**of_it, kind=ApiKey.Kind.PWK)
        self._keys: dict[UUID, UUID] = dict(keys.values_list("environment_id", "id"))
        self._slices = max(1, round(size.runs / _RUNS_OF_A_SLICE))
        self._targets = self._runs_of_each_slice()

    def fill(self) -> Iterator[int]:
        """Makes the runs of each missing slice, and yields how many; first how many there were. A lock lets only one
        command make a slice at a time.
        """
        first = number = self._next_slice()
        yield sum(self._targets[:number])
        while number < self._slices:
            count = 0
            with transaction.atomic():
                lock_demo()
                number = self._next_slice()
                if number < self._slices:
                    count = self._fill_slice(number)
                    number = self._next_slice()
                    if number == self._slices:
                        self._tell()
            yield count
        if first < self._slices:
            _vacuum()

    def _runs_of_each_slice(self) -> list[int]:
        scheduled = [
            sum(len(self._ticks(trigger, number)) for trigger in self._scheduled)
            for number in range(self._slices)
        ]
        others = max(0, self.size.runs - sum(scheduled))
        mean = self.size.runs / self._slices
        weights = [count + 0.3 * mean for count in scheduled]
        until_here = [round(others * w / sum(weights)) for w in accumulate(weights)]
        shares = [b - a for a, b in zip([0, *until_here[:-1]], until_here, strict=True)]
        return [a + b for a, b in zip(scheduled, shares, strict=True)]

    def _bounds(self, number: int) -> tuple[float, float]:
        width = (self._until - self._began) / self._slices
        return self._began + number * width, self._began + (number + 1) * width

    def _ticks(self, trigger: Any, number: int) -> range:
        begin, end = self._bounds(number)
        return ticks_between(trigger.schedule, max(begin, trigger.created_at.timestamp()), end)

    def _next_slice(self) -> int:
        """Returns the slice after that of the newest run. Retries don't count: they may lie in the next slice."""
        latest = fetch_one(
            "SELECT max(latest.queued_at) AS at FROM unnest(%(ids)s::uuid[]) e (id) CROSS JOIN LATERAL ("
            " SELECT queued_at FROM run WHERE environment_id = e.id AND queued_at < %(until)s AND source <> 'retry'"
            " ORDER BY queued_at DESC LIMIT 1) latest",
            {"ids": self._environments, "until": self.workspace.created_at},
        )
        number = 0
        if latest is not None and latest["at"] is not None:
            ends = [self._bounds(number)[1] for number in range(self._slices)]
            number = bisect(ends, latest["at"].timestamp()) + 1
        while number < self._slices and self._targets[number] == 0:
            number += 1
        return min(number, self._slices)

    def _fill_slice(self, number: int) -> int:
        rng = random.Random(f"{self.size.seed}:{number}")  # noqa: S311 - reproducible, and no secret
        ids = Ids(f"{self.workspace.id}:{number}")
        teller = Storyteller(rng, ids, self._until, self._capacity())
        begin, end = self._bounds(number)
        runs: list[Row] = []
        skipped: list[tuple[Any, int]] = []
        for trigger in self._scheduled:
            for tick in self._ticks(trigger, number):
                if rng.random() < _SKIPPED:
                    skipped.append((trigger, tick))
                else:
                    queued = min(tick + rng.random(), end - 0.001)
                    runs += teller.tell(trigger, Source.SCHEDULE, queued, tick)
        weights = self._weights()
        while len(runs) < self._targets[number]:
            (trigger,) = rng.choices(self._others, cum_weights=weights)
            source = Source.MANUAL if rng.random() < 0.2 else Source.API
            runs += teller.tell(trigger, source, rng.uniform(begin, end), None)
        runs.sort(key=lambda run: run["queued_at"])
        newest = end > self._until - timedelta(days=30).total_seconds()
        webhooks = {t.id: t.webhook_url for t in (*self._scheduled, *self._others)}
        urls = {t.id: t.mcp_url for t in (*self._scheduled, *self._others)}
        copy_slice(
            runs, skipped, webhooks=webhooks, mcp_urls=urls, keys=self._keys,
            user_id=self.workspace.created_by_id, until=self._until, whole_story=newest, rng=rng, ids=ids,
        )  # fmt: skip
        return len(runs)

    def _capacity(self) -> Capacity:
        """Returns the workers' limits, and the slots that runs of earlier slices still take."""
        of_it = {"environment__workspace": self.workspace}
        held: dict[UUID, set[int]] = {}
        holding = Run.objects.filter(**of_it, slot__isnull=False, worker_id__isnull=False)
        for worker_id, slot in holding.values_list("worker_id", "slot"):
            if worker_id is not None and slot is not None:
                held.setdefault(worker_id, set()).add(slot)
        limits = Worker.objects.filter(**of_it).values_list("id", "max_concurrency")
        return Capacity(dict(limits), held)

    def _weights(self) -> Sequence[float]:
        shares = dict(zip(self._environments, self.size.shares(), strict=False))
        return list(accumulate(shares[trigger.environment_id] for trigger in self._others))

    def _tell(self) -> None:
        size = {
            "runs": self.size.runs,
            "environments": self.size.environments,
            "seed": self.size.seed,
        }
        emit(Event("demo.seeded", SYSTEM, None, "workspace", self.workspace.id, size))


def _vacuum() -> None:
    with session_without_timeouts(), connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'VACUUM (ANALYZE) "{table}"')
