"""Works out the due times (ticks) of a crontab(5) schedule in a time zone, also when the clocks change (SPEC §5).

`clock_face` finds the dates and times that match the expression. This module decides which expressions and zones are
accepted, and what a clock change does to the times. It never tries one time after another, so the work is limited for
any schedule (SPEC §19).
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSimError

from pipedai.timezones import check_timezone
from triggers.schedules import wall_time
from triggers.schedules.clock_face import ClockFace, clock_face
from triggers.schedules.wall_time import Change

_MINUTE = timedelta(minutes=1)
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
    """A due time (tick), and the clock change that affects it, if there is one.

    For a schedule with a fixed time of day, it is the change that moved the tick or that repeats its time. For a
    recurring schedule, it is the last change that skipped matching times between the tick before and this one.
    """

    at: datetime
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Ticks:
    """The due times (ticks) in a period: the latest one, the number and the last of those before it, and the first
    after it.
    """

    latest: datetime
    earlier_count: int
    last_earlier: datetime | None
    following: datetime


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
        """Returns whether the schedule names fixed times of day.

        If a clock change skips a fixed time, its tick is moved; if a change repeats the time, it has one tick. A
        schedule whose minute or hour begins with `*` is recurring instead, and has a tick whenever the clocks show a
        matching time.
        """
        minute, hour = self.expression.split()[:2]
        return not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, moment: datetime) -> datetime:
        """Returns the first due time (tick) later than `moment`, in UTC. Raises BadSchedule if there is none."""
        return _next_tick(self, _whole_minute(moment))

    def due_after(self, moment: datetime) -> Due:
        """Returns the first due time (tick) later than `moment`, with the clock change that affects it. Raises
        BadSchedule if there is none.
        """
        return _next_due(self, _whole_minute(moment))

    def ticks(self, first: datetime, until: datetime) -> Ticks:
        """Returns the due times (ticks) in [first, until]. `first` must be a tick. Raises BadSchedule if no tick comes
        after `until`.
        """
        return _ticks(self, _whole_minute(first), _whole_minute(until))

    def last_between(self, after: datetime, until: datetime) -> datetime | None:
        """Returns the last due time (tick) later than `after` and not later than `until`, in UTC. Returns None if there
        is none. Raises BadSchedule if the schedule never comes due.
        """
        first, until = self.next_after(after), _whole_minute(until)
        return None if first > until else _latest(self, first, until)

    def spelled_out(self) -> str:
        """Returns the expression with some steps, such as `*/100`, replaced by the numbers that they stand for.

        cron-descriptor puts schedules into words. It describes steps wrongly in a list, in days of the week, and if
        they leave one number only, so these are replaced.
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
        """Returns the dates and times that match the expression, whether or not the clocks of the zone show them."""
        return clock_face(self.expression)


def _whole_minute(moment: datetime) -> datetime:
    """Returns the start of the moment's minute in UTC. All moments of a minute have the same next tick, so a cache can
    find the next tick by the minute.
    """
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


# The cache helps because thousands of triggers have the same few schedules and come due in the same minute.
@lru_cache(maxsize=16_384)
def _next_tick(schedule: Schedule, minute: datetime) -> datetime:
    return _next_due(schedule, minute).at


def _next_due(schedule: Schedule, minute: datetime) -> Due:
    return (_next_fixed if schedule.is_fixed_time else _next_recurring)(schedule, minute)


def _next_fixed(schedule: Schedule, after: datetime) -> Due:
    """Returns the next tick of a schedule with a fixed time of day. The tick comes when the clocks first show that
    time.

    If the clocks skip the time, the tick comes at the moment when they go forward.
    """
    zone = schedule.zone
    wall = schedule.face.first_from(wall_time.not_yet_shown(after, zone))
    change = wall_time.change_around(wall, zone)
    if change is not None and change.goes_forward:
        return Due(change.moment, change)
    return Due(wall_time.first_shown(wall, zone), change)


def _next_recurring(schedule: Schedule, after: datetime) -> Due:
    """Returns the next tick of a recurring schedule. A tick comes whenever the clocks show a matching time.

    A time that the clocks repeat therefore has two ticks, and a time that they skip has none.
    """
    repeated = _next_repeated(schedule, after)
    zone, face, gap = schedule.zone, schedule.face, None
    wall = face.first_from(wall_time.not_yet_shown(after, zone))
    while (change := wall_time.change_around(wall, zone)) is not None and change.goes_forward:
        gap, wall = change, face.first_from(change.wall_after)
        if wall.year > after.year + _NEVER_YEARS:
            raise BadSchedule("It never comes due: clocks go forward over each of its times.")
    first = wall_time.first_shown(wall, zone)
    return Due(first, gap) if repeated is None or first < repeated else Due(repeated)


def _next_repeated(schedule: Schedule, after: datetime) -> datetime | None:
    """Returns the next tick among the times that the clocks show for the second time, after they have gone back.

    Returns None if the clocks do not show `after` twice, or if no such tick is left.
    """
    local = after.astimezone(schedule.zone)
    wall = local.replace(tzinfo=None, fold=0)
    change = wall_time.change_around(wall, schedule.zone)
    if change is None:
        return None
    wall = schedule.face.first_from(wall + _MINUTE if local.fold else change.wall_after)
    return wall_time.moment_of(wall, change.offset_after) if wall < change.wall_before else None


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
    """Returns the last tick in [first, until]. `first` must be a tick.

    The last tick is the first minute whose next tick is later than `until`. A bisection finds that minute.
    """
    minutes = range((until - first) // _MINUTE + 1)
    is_last = bisect_left(
        minutes, True, key=lambda minute: _next_due(schedule, first + minute * _MINUTE).at > until
    )
    return first + is_last * _MINUTE


def _count(schedule: Schedule, first: datetime, until: datetime) -> int:
    """Returns how many ticks lie in (first, until]. Both must be ticks.

    It adds up the matching times between one clock change and the next, and corrects the sum for each change.
    """
    zone, face = schedule.zone, schedule.face
    start, count = wall_time.on_the_clock(first, wall_time.offset_at(first, zone)) + _MINUTE, 0
    for change in wall_time.changes(zone, first, until):
        count += face.count(start, change.wall_before)
        start = change.wall_after
        if schedule.is_fixed_time and change.goes_forward:
            # If a clock change skips matching times, they have one tick together, at the moment of the change. The
            # first minute that the clocks show after the change is the same moment. That minute is therefore counted
            # together with the skipped times, and the count goes on with the next minute.
            start += _MINUTE
            count += face.count(change.wall_before, start) > 0
        elif schedule.is_fixed_time:
            start = change.wall_before
    end = wall_time.on_the_clock(until, wall_time.offset_at(until, zone)) + _MINUTE
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
    """Returns a message for people about the field that cronsim's error message names.

    cronsim also names the day of month if that field is valid and none of the chosen months has such a day. In that
    case the message says that the schedule never comes due.
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
