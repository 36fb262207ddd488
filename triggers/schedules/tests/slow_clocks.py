"""Computes due times plainly: it looks at every minute of each possible day, as the zone's clocks show it.

It shares nothing with the code that it checks, neither the parser of expressions nor the calendar.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import count
from typing import NamedTuple
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


class SlowSchedule:
    """A schedule whose expression has no names of months or days."""

    def __init__(self, expression: str, timezone: str) -> None:
        minute, hour, day, month, weekday = expression.split()
        self.zone = ZoneInfo(timezone)
        self.minutes = _allowed(minute, 0, 59)
        self.hours = _allowed(hour, 0, 23)
        self.days = _allowed(day, 1, 31)
        self.months = _allowed(month, 1, 12)
        self.weekdays = {number % 7 for number in _allowed(weekday, 0, 7)}
        self.needs_both_days = day.startswith("*") or weekday.startswith("*")
        self.is_fixed_time = not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, moment: datetime) -> datetime:
        """Returns the first due time after `moment`."""
        return next(self.ticks_after(moment))

    def ticks_after(self, moment: datetime, *, days: int | None = None) -> Iterator[datetime]:
        """Yields the due times after `moment`, within so many days or for ever."""
        # In every zone, the clocks show the date of UTC, the day before it, or the day after it.
        day = moment.astimezone(UTC).date()
        near = [self._has_day(day + offset * DAY) for offset in (-1, 0, 1)]
        for _ in count() if days is None else range(days):
            if any(near):
                yield from (due for due in self._due_on(day) if due > moment)
            day += DAY
            near = [*near[1:], self._has_day(day + DAY)]

    def _due_on(self, day: date) -> Iterator[datetime]:
        """Yields the due times within a day of UTC."""
        for moment, shown, comes_again, left_out in _looks(self.zone, day):
            due = self._matches(shown)
            if self.is_fixed_time:
                due = (due and not comes_again) or any(map(self._matches, left_out))
            if due:
                yield moment

    def _matches(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self._has_day(wall)

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return in_month and in_week if self.needs_both_days else in_month or in_week


class _Look(NamedTuple):
    """What the clocks show at a moment: a time, whether it comes for the second time, and those that they left out."""

    moment: datetime
    shown: datetime
    comes_again: bool
    left_out: tuple[datetime, ...]


# A test asks for several schedules about the same few days.
@lru_cache(maxsize=32)
def _looks(zone: ZoneInfo, day: date) -> list[_Look]:
    """Looks at the clocks at every minute of a day of UTC."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    before = (midnight - MINUTE).astimezone(zone).replace(tzinfo=None, fold=0)
    found = []
    for minute in range(24 * 60):
        moment = midnight + minute * MINUTE
        local = moment.astimezone(zone)
        shown = local.replace(tzinfo=None, fold=0)
        left_out = tuple(_minutes_between(before, shown)) if shown - before > MINUTE else ()
        found.append(_Look(moment, shown, local.fold == 1, left_out))
        before = shown
    return found


def _minutes_between(before: datetime, wall: datetime) -> Iterator[datetime]:
    while (before := before + MINUTE) < wall:
        yield before


def _allowed(field: str, low: int, high: int) -> set[int]:
    numbers: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            span = f"{low}-{high}"
        first, _, last = span.partition("-")
        end = int(last) if last else high if step else int(first)
        numbers.update(range(int(first), end + 1, int(step or 1)))
    return numbers


def change_days(timezone: str, first_year: int, last_year: int) -> list[datetime]:
    """Returns the UTC midnights at which the days begin on which the zone's clocks change."""
    zone, found = ZoneInfo(timezone), []
    day, end = datetime(first_year, 1, 1, tzinfo=UTC), datetime(last_year + 1, 1, 1, tzinfo=UTC)
    offset = day.astimezone(zone).utcoffset()
    while day < end:
        following = (day + DAY).astimezone(zone).utcoffset()
        if offset != following:
            found.append(day)
        day, offset = day + DAY, following
    return found
