"""Cron schedules after crontab(5), in a time zone, right at both DST changes (SPEC §5).

`clock_face` finds the times that match, without a zone; here is the rest: the grammar we accept, zones that are none,
and what a clock change does. Nothing walks from one time to another, so any schedule is worked out in bounded time
(SPEC §19).
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSimError

from triggers.schedules import wall_time
from triggers.schedules.clock_face import ClockFace, clock_face
from triggers.schedules.wall_time import Change

_MINUTE = timedelta(minutes=1)
# The calendar has a time for each schedule within 40 years, but clocks may go forward over it: `*/15 2 25-31 3 */7`,
# the last Sunday of March, never comes due in Berlin. One that does not within this time counts as such.
_NEVER_YEARS = 100

# In the zone database's folder, but no zones: a folder, links that depend on the machine, a file of defaults.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})
# Each with what it takes.
_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31",
    "month": "1 to 12 or jan to dec",
    "day of week": "0 to 7 or sun (which is 0) to sat",
}
_BEYOND_CRONTAB = re.compile(r".*[#?@].*|\d*[LW]{1,2}", re.IGNORECASE)


class Due(NamedTuple):
    """A tick, and a clock change that concerns it. Of a fixed time: the one that moved it, or that repeats its time. Of
    a recurring one: the last that left out times since the tick before.
    """

    at: datetime
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Ticks:
    """The ticks of a stretch of time: the latest, those before it, and the first one after."""

    latest: datetime
    earlier_count: int
    last_earlier: datetime | None
    following: datetime


class BadSchedule(ValueError):  # noqa: N818
    """The expression is no schedule; the message says what is wrong with it."""


class BadTimezone(ValueError):  # noqa: N818
    """The name is no time zone."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A valid expression in a valid zone."""

    expression: str
    timezone: str

    @property
    def zone(self) -> tzinfo:
        """The time zone itself."""
        return ZoneInfo(self.timezone)

    @property
    def is_fixed_time(self) -> bool:
        """Whether it names times of day, which a DST change moves; `*` and `*/15` go on through it."""
        minute, hour = self.expression.split()[:2]
        return not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, moment: datetime) -> datetime:
        """The first tick later than `moment`, in UTC. Raises BadSchedule if it never comes."""
        return _next_tick(self, _whole_minute(moment))

    def due_after(self, moment: datetime) -> Due:
        """The same, with what a clock change has to do with it."""
        return _next_due(self, _whole_minute(moment))

    def ticks(self, first: datetime, until: datetime) -> Ticks:
        """The ticks from `first`, which is one, to `until`. Raises BadSchedule if it never comes again."""
        return _ticks(self, _whole_minute(first), _whole_minute(until))

    def spelled_out(self) -> str:
        """The same without steps where a step does not say how far apart its times lie: in a list, on days of the
        week, and where it is so long that one time is left (`*/100`).
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
        """The times on the clock face that match, whether or not they exist in the zone."""
        return clock_face(self.expression)


def _whole_minute(moment: datetime) -> datetime:
    """Its minute in UTC. Ticks lie on whole ones, so all moments of a minute have the same next tick."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


# Thousands of triggers share a few schedules, and come due in the same minute.
@lru_cache(maxsize=16_384)
def _next_tick(schedule: Schedule, minute: datetime) -> datetime:
    return _next_due(schedule, minute).at


def _next_due(schedule: Schedule, minute: datetime) -> Due:
    return (_next_fixed if schedule.is_fixed_time else _next_recurring)(schedule, minute)


def _next_fixed(schedule: Schedule, after: datetime) -> Due:
    """A named time fires once a day: the first time it comes, or at the end of the gap it lies in."""
    zone = schedule.zone
    wall = schedule.face.first_from(wall_time.not_yet_shown(after, zone))
    change = wall_time.change_around(wall, zone)
    if change is not None and change.goes_forward:
        return Due(change.moment, change)
    return Due(wall_time.first_shown(wall, zone), change)


def _next_recurring(schedule: Schedule, after: datetime) -> Due:
    """A recurring time fires whenever the clocks show it: twice in a stretch that they repeat, never in a gap."""
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
    """If `after` lies in a stretch that the clocks repeat: the next tick of the second time, or None."""
    local = after.astimezone(schedule.zone)
    wall = local.replace(tzinfo=None, fold=0)
    change = wall_time.change_around(wall, schedule.zone)
    if change is None:
        return None
    wall = schedule.face.first_from(wall + _MINUTE if local.fold else change.wall_after)
    return wall_time.moment_of(wall, change.offset_after) if wall < change.wall_before else None


# The same share: after a time without a scheduler, thousands have missed the same ticks.
@lru_cache(maxsize=4096)
def _ticks(schedule: Schedule, first: datetime, until: datetime) -> Ticks:
    following = schedule.next_after(first)
    if following > until:
        return Ticks(first, 0, None, following)
    latest = _latest(schedule, first, until)
    last_earlier = _latest(schedule, first, latest - _MINUTE)
    return Ticks(latest, _count(schedule, first, latest), last_earlier, schedule.next_after(latest))


def _latest(schedule: Schedule, first: datetime, until: datetime) -> datetime:
    """The last tick from `first`, which is one, to `until`: the first minute after which there is no more of them."""
    minutes = range((until - first) // _MINUTE + 1)
    is_last = bisect_left(
        minutes, True, key=lambda minute: _next_due(schedule, first + minute * _MINUTE).at > until
    )
    return first + is_last * _MINUTE


def _count(schedule: Schedule, first: datetime, until: datetime) -> int:
    """How many ticks lie in (first, until], where both are ticks: those on the clock face from one change to the next,
    and what each change does to them.
    """
    zone, face = schedule.zone, schedule.face
    start, count = wall_time.on_the_clock(first, wall_time.offset_at(first, zone)) + _MINUTE, 0
    for change in wall_time.changes(zone, first, until):
        count += face.count(start, change.wall_before)
        start = change.wall_after
        if schedule.is_fixed_time and change.goes_forward:
            # All times in the gap are one tick at its end, which also is the one that the clocks show there.
            start += _MINUTE
            count += face.count(change.wall_before, start) > 0
        elif schedule.is_fixed_time:
            start = change.wall_before
    end = wall_time.on_the_clock(until, wall_time.offset_at(until, zone)) + _MINUTE
    return count + face.count(start, end)


def parse(expression: str, timezone: str) -> Schedule:
    """The schedule. Raises BadSchedule or BadTimezone with a sentence for the one who wrote it."""
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


def check_timezone(name: str) -> None:
    """Raises BadTimezone unless it is a zone of the IANA database."""
    if name not in _zone_names():
        raise BadTimezone("Not a time zone of the IANA database, such as Europe/Berlin.")


def _explain(message: str, parts: dict[str, str]) -> str:
    """cronsim names the bad field; the day's also if the field is right and none of the months has the day."""
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


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES
