"""Cron schedules after crontab(5), in a time zone, right at both DST changes (SPEC §5).

cronsim does the calendar; here is what it leaves open: the grammar we accept, zones that are none,
and its one error at the end of daylight saving time.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

# In the zone database's folder, but no zones: a folder, links that depend on the machine, a file of defaults.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_BEYOND_CRONTAB = re.compile(r".*[#?@].*|\d*[LW]{1,2}", re.IGNORECASE)


class BadSchedule(ValueError):  # noqa: N818
    """The expression is no schedule; the message says what is wrong with it."""


class BadTimezone(ValueError):  # noqa: N818
    """The name is no time zone."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A valid expression in a valid zone."""

    expression: str
    timezone: str

    def next_after(self, moment: datetime) -> datetime:
        """The first tick later than `moment`, in UTC. Raises BadSchedule if it never comes.

        Started inside the hour that comes twice, cronsim returns times before `moment`: skip these.
        """
        for tick in CronSim(self.expression, moment.astimezone(_zone(self.timezone))):
            utc = tick.astimezone(UTC)
            if utc > moment:
                return utc
        raise BadSchedule("It never comes due.")


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
        raise BadSchedule(_explain(str(error))) from None
    return schedule


def check_timezone(name: str) -> None:
    """Raises BadTimezone unless it is a zone of the IANA database."""
    if name not in _zone_names():
        raise BadTimezone("Not a time zone of the IANA database, such as Europe/Berlin.")


def _explain(message: str) -> str:
    field = message.removeprefix("Bad ")
    return (
        f"The {field} field is not valid." if field != message else "It is not a cron expression."
    )


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES


def _zone(name: str) -> tzinfo:
    return ZoneInfo(name)
