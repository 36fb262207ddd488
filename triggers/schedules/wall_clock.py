"""Works out which dates and times match a crontab(5) expression, and which moments these are in a time zone.

The clocks of a zone show a time once, twice or never. A field of the expression is a number with bit n set if n is
allowed, so that a search takes few operations.
"""

from bisect import bisect_left
from calendar import isleap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from cronsim import CronSim

_MINUTE = timedelta(minutes=1)
# The search for clock changes reads the zone's offset in steps of this length. No zone changes its clocks twice within
# one: the shortest known interval is about a month, in Morocco around Ramadan.
_STEP = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Change:
    moment: datetime
    offset_before: timedelta
    offset_after: timedelta

    @property
    def goes_forward(self) -> bool:
        return self.offset_before < self.offset_after

    @property
    def wall_before(self) -> datetime:
        """What the clocks show at the change by the old offset. If they go forward, it is the first skipped time."""
        return on_the_clock(self.moment, self.offset_before)

    @property
    def wall_after(self) -> datetime:
        return on_the_clock(self.moment, self.offset_after)


def change_around(wall: datetime, zone: tzinfo) -> Change | None:
    """Returns the clock change that skips or repeats `wall`, or None. Such a time has another offset for each value of
    `fold` (PEP 495), which shows where to look for the change.
    """
    before, after = _offset(wall.replace(tzinfo=zone)), _offset(wall.replace(tzinfo=zone, fold=1))
    if before == after:
        return None
    low, high = sorted((moment_of(wall, before), moment_of(wall, after)))
    return Change(_first_without(before, zone, low, high), before, after)


def changes(zone: tzinfo, after: datetime, until: datetime) -> Iterator[Change]:
    """Yields the changes in (after, until]. It reads the zone's offset some fifty times for each year."""
    low, before = after, offset_at(after, zone)
    while low < until:
        high = min(low + _STEP, until)
        offset = offset_at(high, zone)
        if offset != before:
            yield Change(_first_without(before, zone, low, high), before, offset)
        low, before = high, offset


def first_shown(wall: datetime, zone: tzinfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)


def not_yet_shown(moment: datetime, zone: tzinfo) -> datetime:
    """Returns the next minute by the clocks. While they repeat times, it is the first time after the repeated ones."""
    local = moment.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    change = change_around(wall, zone) if local.fold else None
    return wall + _MINUTE if change is None else change.wall_before


def offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    return _offset(moment.astimezone(zone))


def on_the_clock(moment: datetime, offset: timedelta) -> datetime:
    return moment.replace(tzinfo=None) + offset


def moment_of(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)


def _first_without(offset: timedelta, zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """Returns the first moment in (low, high] whose UTC offset is not `offset`, by bisection, because zoneinfo has no
    list of changes. Changes lie on whole minutes.
    """
    minutes = range((high - low) // _MINUTE)
    changed = bisect_left(
        minutes, True, lo=1, key=lambda minute: offset_at(low + minute * _MINUTE, zone) != offset
    )
    return low + changed * _MINUTE


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    assert offset is not None
    return offset


# A number in which every seventh bit is set. Multiplying the seven bits of a week by it repeats them throughout a
# month.
_WEEKLY = sum(1 << day for day in range(0, 31, 7))

# The lengths of the months in a year that is not a leap year. January has the index 1, so the index 0 is not used.
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class ClockFace:
    """A crontab expression as bits. It finds times without a zone; in a zone they may be missing or come twice."""

    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int  # The allowed days of the week as bits. Bit 0 is Sunday.
    # Whether a day must match both the field for days of the month and that for days of the week. It must if either
    # field begins with `*`, as `*/2` also does (crontab(5)). Otherwise a day need match only one of the two.
    needs_both_days: bool

    def numbers(self) -> tuple[list[int], ...]:
        fields = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return tuple(
            [number for number in range(bits.bit_length()) if bits >> number & 1] for bits in fields
        )

    def first_from(self, wall: datetime) -> datetime:
        """Returns the first matching time. There always is one, because cronsim refuses days that never come."""
        day = self._first_day_from(wall.date())
        if day == wall.date():
            clock = self._first_clock_from(wall.hour, wall.minute)
            if clock is not None:
                return datetime.combine(day, clock)
            day = self._first_day_from(day + timedelta(days=1))
        return datetime.combine(day, time(_first(self.hours), _first(self.minutes)))

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        while (start := self.first_from(start)) < end:
            yield start
            start += _MINUTE

    def count(self, start: datetime, end: datetime) -> int:
        if end <= start:
            return 0
        whole_days = self._count_days(start.date(), end.date())
        each_day = self.hours.bit_count() * self.minutes.bit_count()
        return whole_days * each_day + self._count_before(end) - self._count_before(start)

    def _first_clock_from(self, hour: int, minute: int) -> time | None:
        if self.hours >> hour & 1:
            later = _lowest(self.minutes, minute)
            if later is not None:
                return time(hour, later)
        later = _lowest(self.hours, hour + 1)
        return None if later is None else time(later, _first(self.minutes))

    def _first_day_from(self, day: date) -> date:
        """Returns the first matching day, month by month. The rarest, a 29 February, comes within 40 years."""
        year, month, earliest = day.year, day.month, day.day
        while True:
            found = _lowest(self._days_of(year, month), earliest)
            if found is not None:
                return date(year, month, found)
            later, earliest = _lowest(self.months, month + 1), 1
            year, month = (year + 1, _first(self.months)) if later is None else (year, later)

    def _days_of(self, year: int, month: int) -> int:
        """Returns the matching days of a month as bits: bit n is set for day n."""
        if not self.months >> month & 1:
            return 0
        first = date(year, month, 1).isoweekday() % 7
        week_from_first = (self.weekdays >> first | self.weekdays << 7 - first) & _below(7)
        in_week = week_from_first * _WEEKLY << 1
        days = self.days & in_week if self.needs_both_days else self.days | in_week
        length = 29 if month == 2 and isleap(year) else _LENGTHS[month]
        return days & _below(length + 1)

    def _count_days(self, start: date, end: date) -> int:
        days = -(self._days_of(start.year, start.month) & _below(start.day)).bit_count()
        year, month = start.year, start.month
        while (year, month) < (end.year, end.month):
            days += self._days_of(year, month).bit_count()
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return days + (self._days_of(year, month) & _below(end.day)).bit_count()

    def _count_before(self, wall: datetime) -> int:
        if not self._days_of(wall.year, wall.month) >> wall.day & 1:
            return 0
        count = (self.hours & _below(wall.hour)).bit_count() * self.minutes.bit_count()
        if self.hours >> wall.hour & 1:
            count += (self.minutes & _below(wall.minute)).bit_count()
        return count


@lru_cache(maxsize=4096)
def clock_face(expression: str) -> ClockFace:
    cron = CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001 - on the clock face
    return ClockFace(
        minutes=_bits(cron.minutes),
        hours=_bits(cron.hours),
        days=_bits(cron.days),
        months=_bits(cron.months),
        weekdays=_bits({day % 7 for day in cron.weekdays if isinstance(day, int)}),
        needs_both_days=cron.day_and,
    )


def _bits(numbers: set[int]) -> int:
    return sum(1 << number for number in numbers)


def _below(end: int) -> int:
    return (1 << end) - 1


def _lowest(bits: int, start: int) -> int | None:
    bits = bits >> start << start
    return (bits & -bits).bit_length() - 1 if bits else None


def _first(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
