"""A night in which machines are off and accounts reach their usage limits delays no run more than it must.

The night passes in fast motion through the real lifecycle. A run is never claimed later than at the first moment at
which a machine could take it; the test works that moment out from the times in the ledger, without the rules' SQL.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Min

from pipedai.api.renderers import iso_time
from pipedai.sql import execute
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import NOON, Runs
from triggers.models import Run, Trigger
from triggers.runs.handout import outlook
from workers.models import Worker

SEED = 7
RUNS = 120
BEGIN = NOON + timedelta(hours=10)
# How long the trigger's worker has a run for itself.
PREFERRED_FOR = timedelta(seconds=600)
# How many of the runs come together for the first machine, and how long before its account is spent. The machine takes
# one of them, and its limit must open the others to the pool.
WAITING = 4
WAITING_FOR = timedelta(seconds=30)
JITTER = timedelta(seconds=60)
# From when until when the account has no usage left. For an hour neither of the two has any.
SPENT = {
    "a": (BEGIN + timedelta(hours=1), BEGIN + timedelta(hours=4)),
    "b": (BEGIN + timedelta(hours=3), BEGIN + timedelta(hours=6)),
}


@dataclass
class Machine:
    """A machine that takes one run at a time. `ends` is when it will end the run that it holds."""

    worker_id: UUID
    account: str
    is_on: bool = True
    run_id: UUID | None = None
    ends: datetime | None = None
    fails: bool = False

    def takes(self, run_id: UUID, now: datetime, duration: timedelta, notices: timedelta) -> None:
        """Holds the run from `now` on. If its account is spent before the run's end, the run fails `notices` later."""
        begin, end = SPENT[self.account]
        at_limit = max(begin, now) + notices
        self.run_id, self.ends = run_id, now + duration
        self.fails = now < end and at_limit < self.ends
        if self.fails:
            self.ends = at_limit


@dataclass
class Night:
    """The machines of a pool, and when a run of which trigger is asked for."""

    runs: Runs
    machines: list[Machine]
    triggers: list[UUID]
    rng: random.Random
    arrivals: list[tuple[datetime, UUID]] = field(default_factory=list)

    def pass_by(self) -> None:
        """Lets all runs come, and moves the clock from event to event until no run is left."""
        alarms: set[datetime] = set()
        while times := [*(when for when, _ in self.arrivals[:1]), *self._ends(), *alarms]:
            self.runs.now = min(times)
            self.runs.call(*(each.worker_id for each in self._on()))
            self._report()
            while self.arrivals and self.arrivals[0][0] <= self.runs.now:
                self.runs.queue(trigger_id=self.arrivals.pop(0)[1])
            alarms = self._take_runs()

    def _on(self) -> list[Machine]:
        return [each for each in self.machines if each.is_on]

    def _ends(self) -> Iterator[datetime]:
        return (each.ends for each in self.machines if each.ends is not None)

    def _report(self) -> None:
        for each in self.machines:
            if each.run_id is None or each.ends is None or each.ends > self.runs.now:
                continue
            if each.fails:
                limit = {"resetsAt": iso_time(SPENT[each.account][1]), "kind": "five_hour"}
                self.runs.complete(
                    each.run_id,
                    "failed",
                    faultClass="infra",
                    usageLimit=limit,
                    worker_id=each.worker_id,
                )
            else:
                self.runs.complete(each.run_id, worker_id=each.worker_id)
            each.run_id = each.ends = None

    def _take_runs(self) -> set[datetime]:
        """Lets each idle machine poll, and returns when the service tells those without a run to ask again."""
        alarms = set()
        for number, each in enumerate(self._on()):
            if each.run_id is not None:
                continue
            if polled := self.runs.polled(each.worker_id):
                self.runs.claim(polled[0], worker_id=each.worker_id)
                duration = timedelta(seconds=self.rng.randint(60, 300))
                notices = timedelta(seconds=1 + number)
                each.takes(polled[0], self.runs.now, duration, notices)
            else:
                wait = outlook(worker_id=each.worker_id, capacity=1, now=self.runs.now)[0]
                if wait is not None:
                    alarms.add(self.runs.now + wait)
        return alarms


@pytest.fixture
def night(cast: Cast) -> Night:
    """Five machines of two accounts, one of which is off. Some triggers prefer a machine, one of them that one."""
    rng = random.Random(SEED)
    execute("SELECT setseed(0.5)", {})  # for the random part of how long a limit counts
    ids = [cast.worker.worker_id, *(cast.register(f"machine-{n}").worker_id for n in range(2, 6))]
    machines = [
        Machine(worker_id, account) for worker_id, account in zip(ids, "aabba", strict=True)
    ]
    machines[-1].is_on = False
    for each in machines:
        Worker.objects.filter(id=each.worker_id).update(account_id=each.account)
    pool_id = add_pool(cast, *ids)
    preferred = [None, None, ids[0], ids[2], ids[-1]]
    triggers = [
        cast.add_trigger(
            worker_id=each,
            pool_id=pool_id,
            prefer_seconds=PREFERRED_FOR.seconds,
            max_retries=0,
        )
        for each in preferred
    ]
    arrivals = [
        (BEGIN + timedelta(seconds=second), rng.choice(triggers))
        for second in rng.sample(range(8 * 3600), RUNS - WAITING)
    ]
    arrivals += [(SPENT["a"][0] - WAITING_FOR, triggers[2])] * WAITING
    return Night(Runs.of(cast, pool_id=pool_id), machines, triggers, rng, sorted(arrivals))


@dataclass
class Attempt:
    """What the ledger says about one attempt."""

    due: datetime
    claimed: datetime
    ended: datetime
    worker_id: UUID
    preferred: UUID | None


@dataclass
class Ledger:
    """The attempts of a night, and when each machine got nothing because of its account's limit."""

    attempts: list[Attempt]
    machines: list[Machine]
    limits: dict[UUID, tuple[datetime, datetime]]

    def first_moment_of(self, attempt: Attempt) -> datetime:
        """Returns when the first machine could take the attempt, in view of what else the machines did."""
        return min(
            self._free_from(each.worker_id, self._open_to(attempt, each.worker_id), attempt)
            for each in self.machines
            if each.is_on
        )

    def _open_to(self, attempt: Attempt, worker_id: UUID) -> datetime:
        due, preferred = attempt.due, attempt.preferred
        ready = [each for each in self.machines if each.is_on and not self._is_limited(each, due)]
        ids = {each.worker_id for each in ready}
        if preferred in {None, worker_id} or preferred not in ids or ids == {preferred}:
            return due
        assert preferred is not None
        limited_from = self.limits[preferred][0]
        opened = due + PREFERRED_FOR
        return min(opened, limited_from) if limited_from > due else opened

    def opened(self) -> list[Attempt]:
        """Returns the attempts that another machine could take earlier because the preferred one became limited."""
        return [
            each
            for each in self.attempts
            if each.preferred is not None
            and each.preferred != each.worker_id
            and each.due < self.limits[each.preferred][0] <= each.claimed < each.due + PREFERRED_FOR
        ]

    def _is_limited(self, machine: Machine, now: datetime) -> bool:
        begin, end = self.limits[machine.worker_id]
        return begin <= now < end

    def _free_from(self, worker_id: UUID, moment: datetime, attempt: Attempt) -> datetime:
        taken = [self.limits[worker_id]] + [
            (other.claimed, other.ended)
            for other in self.attempts
            if other.worker_id == worker_id and other is not attempt
        ]
        for begin, end in sorted(taken):
            if begin <= moment < end:
                moment = end
        return moment


def _ledger(night: Night) -> Ledger:
    preferred = dict(Trigger.objects.values_list("id", "worker_id"))
    rows: Any = Run.objects.order_by("available_at", "id")
    attempts = [
        Attempt(
            row.available_at,
            row.claimed_at,
            row.ended_at,
            row.worker_id,
            preferred[row.trigger_id],
        )
        for row in rows
    ]
    until: dict[UUID, Any] = dict(Worker.objects.values_list("id", "limited_until"))
    at_limit = Run.objects.filter(at_limit=True)
    first_report = {
        account: at_limit.filter(worker__account_id=account).aggregate(first=Min("ended_at"))[
            "first"
        ]
        for account in SPENT
    }
    limits = {
        each.worker_id: (first_report[each.account], until[each.worker_id])
        for each in night.machines
    }
    return Ledger(attempts, night.machines, limits)


def test_every_run_of_a_night_is_done_as_soon_as_it_could_be(night: Night) -> None:
    night.pass_by()
    assert Run.objects.filter(status="succeeded").count() == RUNS
    assert not Run.objects.filter(ended_at__isnull=True).exists()
    at_limit = Run.objects.filter(at_limit=True)
    assert {row.worker.account_id for row in at_limit.select_related("worker")} == set(SPENT)
    for row in Run.objects.all():
        assert row.attempt - row.limit_retries == 1
    ledger = _ledger(night)
    assert sum(each.claimed > each.due for each in ledger.attempts) > RUNS / 3
    for each in night.machines:
        begin, end = SPENT[each.account]
        limited_from, until = ledger.limits[each.worker_id]
        assert begin <= limited_from <= begin + timedelta(minutes=10)
        assert end <= until <= end + JITTER
    assert len(ledger.opened()) >= WAITING - 1
    for attempt in ledger.attempts:
        assert attempt.claimed == ledger.first_moment_of(attempt)
