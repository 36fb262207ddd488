"""Works out the due times (ticks) of a trigger: those of its crontab(5) schedule in a time zone, also when clocks
change, and the single one of its `runOnceAt`. It also describes a schedule in English.

`wall_clock` finds the matching times. The work is limited for any schedule, because no search tries one time after
another.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, Self
from zoneinfo import ZoneInfo

from cron_descriptor import ExpressionDescriptor, Options
from cronsim import CronSimError

from pipedai.clocks import check_timezone
from pipedai.sql import Row
from triggers.schedules import wall_clock
from triggers.schedules.wall_clock import Change, ClockFace, clock_face

_MINUTE = timedelta(minutes=1)

_MOMENT = timedelta(microseconds=1)

# For how many years a schedule is searched for a due time before it counts as one that never comes due. The calendar
# has a matching time within 40 years, but the clocks may skip all of them. An example is `*/15 2 25-31 3 */7` in the
# zone Europe/Berlin: it names 02:00 to 03:00 on the last Sunday of March, which the clocks of Berlin always skip.
_NEVER_YEARS = 100

# The fields of a crontab expression, with the values that the error message about a field names.
_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31",
    "month": "1 to 12 or jan to dec",
    "day of week": "0 to 7 or sun (which is 0) to sat",
}

_BEYOND_CRONTAB = re.compile(r".*[#?@].*|\d*[LW]{1,2}", re.IGNORECASE)


class Due(NamedTuple):
    """A due time (tick), and the clock change that affects it. For a fixed time of day, the change moved or repeats it.
    For a recurring schedule, it is the last change that skipped matching times before it.
    """

    at: datetime
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Ticks:
    """The due times (ticks) in a period: the latest, the number and last of those before it, and the next after it."""

    latest: datetime
    earlier_count: int
    last_earlier: datetime | None
    following: datetime | None


class BadSchedule(ValueError):  # noqa: N818
    """The error for an expression that is not a valid schedule. The message tells its author what is wrong."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule: a valid crontab expression in a valid time zone."""

    expression: str
    timezone: str

    @property
    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)

    @property
    def is_fixed_time(self) -> bool:
        """Whether the schedule names fixed times of day: each comes once a day, moved if the clocks skip it. A
        recurring one, with a minute or hour that begins with `*`, comes whenever the clocks show a matching time.
        """
        minute, hour = self.expression.split()[:2]
        return not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, moment: datetime) -> datetime:
        return _next_tick(self, _whole_minute(moment))

    def ticks(self, first: datetime, until: datetime) -> Ticks:
        """Returns the ticks in [first, until]; `first` must be a tick. Raises BadSchedule if no tick comes after."""
        return _ticks(self, _whole_minute(first), _whole_minute(until))

    def last_between(self, after: datetime, until: datetime) -> datetime | None:
        """Returns the last tick in (after, until], or None. Raises BadSchedule if there never is one."""
        first, until = self.next_after(after), _whole_minute(until)
        return None if first > until else _latest(self, first, until)

    def spelled_out(self) -> str:
        """Returns the expression without those steps that cron-descriptor describes wrongly: in lists, in days of the
        week, and if they leave one number only.
        """
        return " ".join(
            ",".join(map(str, numbers))
            if "/" in part and ("," in part or field == "day of week" or len(numbers) == 1)
            else part
            for field, part, numbers in zip(
                _FIELDS, self.expression.split(), self.face.numbers(), strict=True
            )
        )

    @property
    def face(self) -> ClockFace:
        return clock_face(self.expression)


def _whole_minute(moment: datetime) -> datetime:
    """Rounds a moment down to its minute, for the cache: all moments of a minute have the same next tick."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


# The cache helps because thousands of triggers have the same few schedules and come due in the same minute.
@lru_cache(maxsize=16_384)
def _next_tick(schedule: Schedule, minute: datetime) -> datetime:
    return _next_due(schedule, minute).at


def _next_due(schedule: Schedule, minute: datetime) -> Due:
    return (_next_fixed if schedule.is_fixed_time else _next_recurring)(schedule, minute)


def _next_fixed(schedule: Schedule, after: datetime) -> Due:
    """Returns the next tick: when the clocks first show the time, or when they skip it by going forward."""
    zone = schedule.zone
    wall = schedule.face.first_from(wall_clock.not_yet_shown(after, zone))
    change = wall_clock.change_around(wall, zone)
    if change is not None and change.goes_forward:
        return Due(change.moment, change)
    return Due(wall_clock.first_shown(wall, zone), change)


def _next_recurring(schedule: Schedule, after: datetime) -> Due:
    """Returns the next tick: each matching time that clocks show, twice if they repeat it, never if they skip it."""
    repeated = _next_repeated(schedule, after)
    zone, face, gap = schedule.zone, schedule.face, None
    wall = face.first_from(wall_clock.not_yet_shown(after, zone))
    while (change := wall_clock.change_around(wall, zone)) is not None and change.goes_forward:
        gap, wall = change, face.first_from(change.wall_after)
        if wall.year > after.year + _NEVER_YEARS:
            raise BadSchedule("It never comes due: clocks go forward over each of its times.")
    first = wall_clock.first_shown(wall, zone)
    return Due(first, gap) if repeated is None or first < repeated else Due(repeated)


def _next_repeated(schedule: Schedule, after: datetime) -> datetime | None:
    """Returns the next tick among times shown for the second time, after the clocks went back, or None."""
    local = after.astimezone(schedule.zone)
    wall = local.replace(tzinfo=None, fold=0)
    change = wall_clock.change_around(wall, schedule.zone)
    if change is None:
        return None
    wall = schedule.face.first_from(wall + _MINUTE if local.fold else change.wall_after)
    return wall_clock.moment_of(wall, change.offset_after) if wall < change.wall_before else None


# The cache helps because thousands of triggers have missed the same ticks after a time without a scheduler.
@lru_cache(maxsize=4096)
def _ticks(schedule: Schedule, first: datetime, until: datetime) -> Ticks:
    following = schedule.next_after(first)
    if following > until:
        return Ticks(first, 0, None, following)
    latest = _latest(schedule, first, until)
    last_earlier = _latest(schedule, first, latest - _MINUTE)
    return Ticks(latest, _count(schedule, first, latest), last_earlier, schedule.next_after(latest))


def _latest(schedule: Schedule, first: datetime, until: datetime) -> datetime:
    """Returns the last tick up to `until`, by bisection: the first minute with a later next tick. `first` is a tick."""
    minutes = range((until - first) // _MINUTE + 1)
    is_last = bisect_left(
        minutes, True, key=lambda minute: _next_due(schedule, first + minute * _MINUTE).at > until
    )
    return first + is_last * _MINUTE


def _count(schedule: Schedule, first: datetime, until: datetime) -> int:
    """Counts the ticks in (first, until], from one clock change to the next. Both moments must be ticks."""
    zone, face = schedule.zone, schedule.face
    start, count = wall_clock.on_the_clock(first, wall_clock.offset_at(first, zone)) + _MINUTE, 0
    for change in wall_clock.changes(zone, first, until):
        count += face.count(start, change.wall_before)
        start = change.wall_after
        if schedule.is_fixed_time and change.goes_forward:
            # Matching times that a clock change skips have one tick together, at the moment of the change. The first
            # minute that the clocks show after the change is the same moment. So that minute is counted together with
            # the skipped times, and the count goes on with the next minute.
            start += _MINUTE
            count += face.count(change.wall_before, start) > 0
        elif schedule.is_fixed_time:
            start = change.wall_before
    end = wall_clock.on_the_clock(until, wall_clock.offset_at(until, zone)) + _MINUTE
    return count + face.count(start, end)


def parse(expression: str, timezone: str) -> Schedule:
    """Parses a crontab expression. Raises BadSchedule or BadTimezone with a message for the expression's author."""
    parts = expression.split()
    if len(parts) != len(_FIELDS):
        raise BadSchedule(f"Needs the 5 fields {', '.join(_FIELDS)}; it has {len(parts)}.")
    for name, part in zip(_FIELDS, parts, strict=True):
        if any(_BEYOND_CRONTAB.fullmatch(item) for item in re.split("[,/-]", part)):
            raise BadSchedule(f"The {name} field {part!r} is not crontab(5): no L, W, #, ? or @.")
    check_timezone(timezone)
    schedule = Schedule(" ".join(parts), timezone)
    try:
        schedule.next_after(datetime.now(UTC))
    except CronSimError as error:
        raise BadSchedule(_explain(str(error), dict(zip(_FIELDS, parts, strict=True)))) from None
    return schedule


def _explain(message: str, parts: dict[str, str]) -> str:
    """Returns a message about the field that cronsim names. It also names a valid day of month that no chosen month
    has; the message then says that the schedule never comes due.
    """
    field = message.removeprefix("Bad ").replace("-", " ")
    if field == "day of month" and _is_valid(f"* * {parts[field]} * *"):
        return "It never comes due: none of its months has such a day."
    return (
        f"The {field} field {parts[field]!r} is not valid. It takes {_FIELDS[field]}, *,"
        " ranges from low to high, steps and lists of these."
    )


def _is_valid(expression: str) -> bool:
    try:
        clock_face(expression)
    except CronSimError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class DueTimes:
    """The schedule or the single due time, a whole minute, or both. A time that both of them name is one due time."""

    schedule: Schedule | None
    once: datetime | None

    @classmethod
    def of(cls, trigger: Row) -> Self:
        """Returns the due times of `trigger`, a row with `schedule`, `timezone` and `run_once_at`."""
        expression = trigger["schedule"]
        schedule = None if expression is None else Schedule(expression, trigger["timezone"])
        return cls(schedule, trigger["run_once_at"])

    def next_after(self, moment: datetime) -> datetime | None:
        """Returns the first due time after `moment`, or None. Here and below, the schedule's errors are raised."""
        coming = [self.schedule.next_after(moment)] if self.schedule else []
        if self.once is not None and self.once > moment:
            coming.append(self.once)
        return min(coming, default=None)

    def ticks(self, first: datetime, until: datetime) -> Ticks:
        """Returns the due times in [first, until]; `first` must be one of them."""
        once, following = self.once, self.next_after(until)
        if self.schedule is None:
            return Ticks(first, 0, None, following)
        start = self.schedule.next_after(first - _MOMENT)
        if start > until:
            return Ticks(first, 0, None, following)
        own = self.schedule.ticks(start, until)
        if once is None or once > until or once == self.schedule.next_after(once - _MOMENT):
            return Ticks(own.latest, own.earlier_count, own.last_earlier, following)
        *_, earlier, latest = sorted(filter(None, (own.last_earlier, own.latest, once)))
        return Ticks(latest, own.earlier_count + 1, earlier, following)

    def last_between(self, after: datetime, until: datetime) -> datetime | None:
        """Returns the last due time in (after, until], or None."""
        last = self.schedule.last_between(after, until) if self.schedule else None
        if self.once is not None and after < self.once <= until:
            return max(last or self.once, self.once)
        return last


@dataclass(frozen=True, slots=True)
class ComingTime:
    """One coming due time of a preview."""

    at: datetime
    note: str | None


def describe(schedule: Schedule) -> str:
    options = Options()
    options.use_24hour_time_format = True
    words = str(ExpressionDescriptor(schedule.spelled_out(), options).get_description())
    # The library cron-descriptor always joins the day of month and the day of week with "or". A schedule such as `0 6
    # */2 * mon` needs both: odd days that are Mondays.
    return words.replace(", or on ", ", only on ") if schedule.face.needs_both_days else words


def coming_times(schedule: Schedule, after: datetime, count: int) -> list[ComingTime]:
    times: list[ComingTime] = []
    for _ in range(count):
        due = _next_due(schedule, _whole_minute(after))
        times.append(ComingTime(due.at, _note(schedule, due)))
        after = due.at
    return times


def with_single(times: list[ComingTime], once: datetime, count: int) -> list[ComingTime]:
    """Returns the first `count` of these times and the single one. A time that is both is one due time."""
    if all(each.at != once for each in times):
        times = sorted([*times, ComingTime(once, None)], key=lambda each: each.at)
    return times[:count]


def _note(schedule: Schedule, due: Due) -> str | None:
    if due.change is None:
        return None
    wall = due.at.astimezone(schedule.zone)
    if not due.change.goes_forward:
        return f"{wall:%H:%M} comes twice: clocks go back. It fires at the first."
    gap = schedule.face.between(due.change.wall_before, due.change.wall_after)
    absent = list(islice(gap, 6))
    times = ", ".join(f"{time:%H:%M}" for time in absent[:5]) + ("…" if absent[5:] else "")
    lost = f"Clocks go forward: there is no {times} on {absent[0]:%Y-%m-%d}."
    return f"{lost} It fires at {wall:%H:%M}." if schedule.is_fixed_time else lost
