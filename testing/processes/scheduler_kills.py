"""Kills schedulers at random while triggers come due, and counts how every tick was decided."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from testing.processes.forks import forked, kill

SCHEDULERS = 3
# A minute on the schedulers' clock lasts this long.
MINUTE_SECONDS = 3.0
MINUTE = timedelta(minutes=1)
FIRST = datetime(2100, 5, 4, 12, tzinfo=UTC)
_CATCH_UP_SECONDS = 120.0
# One in this many triggers has no worker, so that its ticks make no runs and share rows.
_WITHOUT_WORKER = 10


@dataclass
class Kills:
    """What was done, and the errors that were found, each with a description and how often it occurred."""

    triggers: int
    minutes: int
    kills: int = 0
    ticks: int = 0
    fired: int = 0
    missed: int = 0
    without_worker: int = 0
    runs: int = 0
    seconds: float = 0.0
    wrong: Counter[str] = field(default_factory=Counter)


def kill_schedulers(cast: Any, *, triggers: int, seconds: float) -> Kills:
    """Lets triggers come due each minute while three schedulers run, and kills one of these every second or so.

    After `seconds` it lets the schedulers fire what is still due, and then checks all ticks.
    """
    from testing.world.many_triggers import add_triggers
    from triggers.models import Trigger

    found = Kills(triggers, minutes=int(seconds / MINUTE_SECONDS))
    last = FIRST + (found.minutes - 1) * MINUTE
    unassigned = triggers // _WITHOUT_WORKER
    add_triggers(cast, triggers - unassigned, schedule="* * * * *", due=FIRST)
    add_triggers(cast, unassigned, schedule="* * * * *", due=FIRST, worker_id=None)
    scheduled = Trigger.objects.filter(next_run_at__isnull=False)
    began = time.time()
    schedule = partial(_schedule, began, last)
    with _schedulers(schedule) as pids:
        while time.time() < began + seconds:
            time.sleep(random.uniform(0.5, 2.5))  # noqa: S311
            number = random.randrange(SCHEDULERS)  # noqa: S311
            kill(pids[number])
            pids[number] = forked(schedule)
            found.kills += 1
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while scheduled.filter(next_run_at__lte=last).exists():
            if time.monotonic() > deadline:
                found.wrong["triggers still due"] = scheduled.filter(next_run_at__lte=last).count()
                break
            time.sleep(0.1)
    found.seconds = round(time.time() - began, 1)
    _look(found)
    return found


def _look(found: Kills) -> None:
    """Compares the decided ticks with those that came due."""
    from triggers.models import Run, Tick, Trigger
    from triggers.states import Decision

    expected = [FIRST + n * MINUTE for n in range(found.minutes)]
    decided: dict[Any, list[datetime]] = {
        trigger_id: []
        for trigger_id in Trigger.objects.filter(next_run_at__isnull=False).values_list(
            "id", flat=True
        )
    }
    runs = {
        run_id: (trigger_id, at)
        for run_id, trigger_id, at in Run.objects.values_list("id", "trigger_id", "scheduled_for")
    }
    found.runs = len(runs)
    for trigger_id, at, until, count, decision, run_id in Tick.objects.values_list(
        "trigger_id", "tick_at", "last_tick_at", "missed_count", "decision", "run_id"
    ):
        covered = [at + n * MINUTE for n in range((until - at) // MINUTE + 1)]
        decided[trigger_id] += covered
        found.fired += decision == Decision.FIRED
        found.missed += count * (decision == Decision.SKIPPED_MISSED)
        found.without_worker += count * (decision == Decision.SKIPPED_NO_WORKER)
        if decision != Decision.FIRED:
            found.wrong["a row's count is not that of its ticks"] += count != len(covered)
        else:
            found.wrong["a fired tick without its own run"] += runs.pop(run_id, None) != (
                trigger_id,
                at,
            )
    found.ticks = sum(map(len, decided.values()))
    found.wrong["runs without a tick"] += len(runs)
    for ticks in decided.values():
        found.wrong["ticks without a decision"] += len(set(expected) - set(ticks))
        found.wrong["ticks decided more than once"] += len(ticks) - len(set(ticks))
        found.wrong["ticks that were not due"] += len(set(ticks) - set(expected))
    found.wrong = +found.wrong


@contextlib.contextmanager
def _schedulers(schedule: Callable[[], None]) -> Iterator[list[int]]:
    """Starts schedulers, gives their pids to the block, which may replace some, and kills them afterwards."""
    pids = [forked(schedule) for _ in range(SCHEDULERS)]
    try:
        yield pids
    finally:
        for pid in pids:
            kill(pid)


def _schedule(began: float, last: datetime) -> None:
    """Fires the due triggers until this process is killed, by a clock on which a minute lasts three seconds.

    The clock showed FIRST at the Unix time `began`, and stops at `last`.
    """
    from triggers.schedules.firing import fire_due_ticks

    while True:
        passed = (time.time() - began) / MINUTE_SECONDS * MINUTE
        if not fire_due_ticks(now=min(FIRST + passed, last), limit=100):
            time.sleep(0.1)
