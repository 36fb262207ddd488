"""Cron schedules after crontab(5), in a time zone, right at both DST changes (SPEC §5).

cronsim does the calendar, on the clock face; here is the rest: the grammar we accept, zones that
are none, and what a clock change does. (cronsim's own way through it misses times where clocks
change by half an hour.)
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from triggers import wall_time

_MINUTE = timedelta(minutes=1)
# Clocks are put forward or back by two hours at the most (Antarctica/Troll).
_LONGEST_CHANGE = timedelta(hours=3)

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
        # Ticks lie on whole minutes, so all moments of a minute have the same next one.
        return _next_tick(self, moment.astimezone(UTC).replace(second=0, microsecond=0))

    def ticks(self, first: datetime, until: datetime) -> Ticks:
        """The ticks from `first`, which is one, to `until`. Raises BadSchedule if it never comes again."""
        return _ticks(self, first, until.astimezone(UTC).replace(second=0, microsecond=0))

    def spelled_out(self) -> str:
        """The same without steps where a step does not say how far apart its times lie: in a list, on days of the
        week, and where it is so long that one time is left (`*/100`).
        """
        cron = CronSim(self.expression, datetime(2000, 1, 1))  # noqa: DTZ001 - on the clock face
        weekdays = {day % 7 for day in cron.weekdays if isinstance(day, int)}
        named: tuple[set[int], ...] = (
            cron.minutes, cron.hours, {day for day in cron.days if isinstance(day, int)}, cron.months, weekdays,
        )  # fmt: skip
        return " ".join(
            ",".join(map(str, sorted(values)))
            if "/" in part and ("," in part or values is weekdays or len(values) == 1)
            else part
            for part, values in zip(self.expression.split(), named, strict=True)
        )

    @property
    def needs_both_days(self) -> bool:
        """Whether a day must match in the month and in the week: so it is if either field begins with `*`, and not
        only if it is `*` (crontab(5)).
        """
        _, _, in_month, _, in_week = self.expression.split()
        return in_month.startswith("*") or in_week.startswith("*")

    def wall_times_after(self, wall: datetime) -> Iterator[datetime]:
        """The times on the clock face that match, without a zone, whether or not they exist."""
        return CronSim(self.expression, wall)


# Thousands of triggers share a few schedules, and come due in the same minute.
@lru_cache(maxsize=16_384)
def _next_tick(schedule: Schedule, minute: datetime) -> datetime:
    find = _next_fixed if schedule.is_fixed_time else _next_recurring
    try:
        return find(schedule, minute)
    except StopIteration:
        raise BadSchedule("It never comes due.") from None


# The same share: after a time without a scheduler, thousands have missed the same ticks.
@lru_cache(maxsize=4096)
def _ticks(schedule: Schedule, first: datetime, until: datetime) -> Ticks:
    latest, count, last_earlier = first, 0, None
    while (following := schedule.next_after(latest)) <= until:
        latest, last_earlier, count = following, latest, count + 1
    return Ticks(latest, count, last_earlier, following)


def _next_fixed(schedule: Schedule, after: datetime) -> datetime:
    """A named time fires once a day: the first time it comes, or at the end of the gap it lies in."""
    zone = schedule.zone
    earlier = after.astimezone(zone).replace(tzinfo=None)
    if wall_time.first_change(zone, after - _LONGEST_CHANGE, after + _LONGEST_CHANGE):
        # A time in the gap, or in the hour that comes again, may stand for a later moment.
        earlier -= _LONGEST_CHANGE
    moments = (wall_time.first_moment(wall, zone) for wall in schedule.wall_times_after(earlier))
    return next(moment for moment in moments if moment > after)


def _next_recurring(schedule: Schedule, after: datetime) -> datetime:
    """A recurring time fires whenever the clocks show it: from one clock change to the next, they run evenly."""
    zone = schedule.zone
    start, from_then_on = after, False
    while True:
        offset = wall_time.offset_at(start, zone)
        wall = (start + offset).replace(tzinfo=None)
        walls = schedule.wall_times_after(wall - _MINUTE if from_then_on else wall)
        moment = (next(walls) - offset).replace(tzinfo=UTC)
        change = wall_time.first_change(zone, start, moment)
        if change is None:
            return moment
        start, from_then_on = change, True


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
        CronSim(expression, datetime.now(UTC))
    except CronSimError:
        return False
    return True


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES
