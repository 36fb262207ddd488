"""The steps to compute a due time are bounded, for the rarest schedule and in any zone.

A step is a call of a function, in Python or in C, so that the result does not depend on the machine or its load.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import available_timezones

import pytest

from pipedai.clocks import check_timezone
from testing.world.cases import cases
from triggers.schedules import cron
from triggers.schedules.cron import BadSchedule, Schedule, coming_times, parse

START = datetime(2026, 10, 20, 7, 3, tzinfo=UTC)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "Africa/Casablanca",
    "America/Santiago",
    "Antarctica/Troll",
    "Asia/Gaza",
]
WORST = [
    "*/100 */100 29 2 */7",  # a 29 February that is a Sunday comes once in 28 or 40 years
    "0 0 29 2 */7",
    "*/100 2 29-31 2,3 */7",  # and in Berlin most of these Sundays have no such hour
    "* 1-2 24-31 3 */7",
    "*/100 0 2-9 9 */7",
    "* * 29 2 */6",
    "* * * * *",
    "0-59 0-23 * * *",
    "0 3 31 12 *",
]  # fmt: skip


def steps(action: Callable[[], Any]) -> int:
    """Returns how many functions the action calls."""
    count = 0

    def note(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture(autouse=True)
def _nothing_is_known_yet() -> None:
    """Forgets the computed due times. The names of the zones stay known, since a process reads them once."""
    check_timezone("UTC")
    cron._next_tick.cache_clear()
    cron._ticks.cache_clear()


@cases("zone", ZONES)
@cases("expression", WORST)
def test_a_next_due_time_takes_so_many_steps(expression: str, zone: str) -> None:
    schedule = Schedule(expression, zone)
    for days in range(0, 30 * 365, 177):
        moment = START + timedelta(days=days)
        assert steps(partial(schedule.next_after, moment)) < 3000


def test_a_next_due_time_takes_so_many_steps_in_every_zone() -> None:
    for zone in sorted(available_timezones()):
        schedule = Schedule("*/100 */100 29 2 */7", zone)
        assert steps(partial(schedule.next_after, START)) < 1000, zone


@cases("zone", ZONES)
@cases("expression", WORST)
def test_a_preview_takes_so_many_steps(expression: str, zone: str) -> None:
    assert steps(lambda: coming_times(Schedule(expression, zone), START, 100)) < 200_000


@cases("zone", ZONES)
@cases("expression", WORST)
def test_ten_missed_years_take_so_many_steps(expression: str, zone: str) -> None:
    """The number of missed ticks does not matter: a schedule of every minute missed five million."""
    schedule = Schedule(expression, zone)
    first = schedule.next_after(START - timedelta(days=3650))
    assert steps(lambda: schedule.ticks(first, START)) < 20_000


@cases("expression", ["*/30 2 25-31 3 */7", "* 2 25-31 3 */7"])
def test_to_find_that_one_never_comes_due_takes_so_many_steps(expression: str) -> None:
    def refused() -> None:
        with pytest.raises(BadSchedule):
            parse(expression, "Europe/Berlin")

    assert steps(refused) < 20_000
