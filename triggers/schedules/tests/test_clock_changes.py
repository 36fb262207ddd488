"""Across clock changes, schedules agree with a computation that looks at the clocks at every minute."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from testing.world.cases import cases
from triggers.schedules.cron import coming_times, describe, parse

MINUTE = timedelta(minutes=1)
CHANGES = [
    ("Europe/Berlin", "2027-03-28"),
    ("Europe/Berlin", "2027-10-31"),
    ("America/New_York", "2027-03-14"),
    ("America/New_York", "2027-11-07"),
    ("Australia/Lord_Howe", "2027-04-04"),  # the clocks change by half an hour
    ("Australia/Lord_Howe", "2027-10-03"),
    ("Antarctica/Troll", "2027-03-28"),  # the clocks change by two hours
    ("Antarctica/Troll", "2027-10-31"),
    ("America/Santiago", "2027-09-05"),  # the clocks change at midnight
    ("UTC", "2027-03-28"),
]
MINUTES = {
    "*": range(60), "*/7": range(0, 60, 7), "*/15": range(0, 60, 15), "0": [0], "30": [30],
    "5,35": [5, 35], "10-20": range(10, 21), "59": [59],
}  # fmt: skip
HOURS = {
    "*": range(24), "*/2": range(0, 24, 2), "0": [0], "1": [1], "2": [2], "3": [3], "1-3": [1, 2, 3],
    "2,4": [2, 4], "23": [23],
}  # fmt: skip


class Look(NamedTuple):
    """What the clocks show at a moment: a time, whether it comes for the second time, and those that they left out."""

    moment: datetime
    wall: datetime
    comes_again: bool
    left_out: tuple[datetime, ...]


@cache
def looks(zone: ZoneInfo, start: datetime, end: datetime) -> list[Look]:
    """Looks at the clocks at every minute."""
    found = []
    moment, before = start, (start - MINUTE).astimezone(zone).replace(tzinfo=None)
    while moment <= end:
        local = moment.astimezone(zone)
        wall = local.replace(tzinfo=None, fold=0)
        left_out = tuple(minutes_between(before, wall))
        found.append(Look(moment, wall, local.fold == 1, left_out))
        moment, before = moment + MINUTE, wall
    return found


def minute_by_minute(minute: str, hour: str, zone: ZoneInfo, start: datetime, end: datetime):
    """Returns the due times, found by a look at the clocks at every minute."""

    def matches(wall: datetime) -> bool:
        return wall.minute in MINUTES[minute] and wall.hour in HOURS[hour]

    fixed = not minute.startswith("*") and not hour.startswith("*")
    for look in looks(zone, start, end):
        if fixed:
            due = any(map(matches, look.left_out)) or (matches(look.wall) and not look.comes_again)
        else:
            due = matches(look.wall)
        if due:
            yield look.moment


def minutes_between(before: datetime, wall: datetime) -> Iterator[datetime]:
    gone = before + MINUTE
    while gone < wall:
        yield gone
        gone += MINUTE


@cases("minute", MINUTES)
@cases(("timezone", "day"), CHANGES)
def test_ticks_are_those_that_the_clocks_show(timezone, day, minute):
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=12)
    end = start + timedelta(hours=36)
    for hour in HOURS:
        schedule = parse(f"{minute} {hour} * * *", timezone)
        ticks, tick = [], start - MINUTE
        while (tick := schedule.next_after(tick)) <= end:
            ticks.append(tick)
        expected = list(minute_by_minute(minute, hour, ZoneInfo(timezone), start, end))
        assert ticks == expected, f"{schedule.expression} in {timezone}"


def test_a_start_within_a_minute_makes_no_difference():
    schedule = parse("*/15 2 * * *", "Australia/Lord_Howe")
    moment = datetime(2027, 4, 3, 15, 29, tzinfo=UTC)
    expected = schedule.next_after(moment)
    offset = timedelta(seconds=random.uniform(0, 59.9))
    assert schedule.next_after(moment + offset) == expected


@pytest.mark.parametrize(
    ("expression", "timezone", "after", "local", "note"),
    [
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2027-03-27T20:00Z", "2027-03-28T03:00:00+02:00",
            "Clocks go forward: there is no 02:30 on 2027-03-28. It fires at 03:00.", id="moved",
        ),
        pytest.param(
            "*/30 2 * * *", "Europe/Berlin", "2027-03-27T20:00Z", "2027-03-29T02:00:00+02:00",
            "Clocks go forward: there is no 02:00, 02:30 on 2027-03-28.", id="dropped",
        ),
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2027-10-30T20:00Z", "2027-10-31T02:30:00+02:00",
            "02:30 comes twice: clocks go back. It fires at the first.", id="twice",
        ),
        pytest.param(
            "*/30 * * * *", "Europe/Berlin", "2027-10-31T00:45Z", "2027-10-31T02:00:00+01:00",
            None, id="goes on through both",
        ),
        pytest.param(
            "45 1 * * *", "Europe/Berlin", "2027-03-27T20:00Z", "2027-03-28T01:45:00+01:00",
            None, id="before the change",
        ),
    ],
)  # fmt: skip
def test_a_preview_notes_what_a_clock_change_does(expression, timezone, after, local, note):
    schedule = parse(expression, timezone)
    (coming,) = coming_times(schedule, datetime.fromisoformat(after), 1)
    assert coming.at == datetime.fromisoformat(local)
    assert coming.note == note


@cases(
    ("expression", "words"),
    [
        ("30 2 * * MON", "At 02:30, only on Monday"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("0 0 1 * mon", "At 00:00, on day 1 of the month, or on Monday"),
        ("0 0 */2 * mon", "At 00:00, every 2 days, only on Monday"),
        ("0 0 1 * */3", "At 00:00, on day 1 of the month, only on Sunday, Wednesday, and Saturday"),
        ("*/100 * * * *", "Every hour"),
        ("0 */24 * * *", "At 00:00"),
        ("1-5/2,10 * * * *", "At 1, 3, 5, and 10 minutes past the hour"),
        ("0 0 * * Mon,Wed-Fri/2", "At 00:00, only on Monday, Wednesday, and Friday"),
        ("0 0 * * mon-fri", "At 00:00, Monday through Friday"),
        ("0 0 * * 6-7", "At 00:00, Saturday through Sunday"),
        ("0 0 * * 5-7/2", "At 00:00, only on Sunday and Friday"),
    ],
)
def test_a_schedule_is_described_in_words_that_are_true(expression, words):
    assert describe(parse(expression, "UTC")) == words
