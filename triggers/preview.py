"""Shows what a schedule will do: in words, its coming times, and what a DST change does to them (SPEC §5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import pairwise, takewhile

from cron_descriptor import ExpressionDescriptor, Options

from triggers.cron import Schedule
from triggers.wall_time import comes_twice, exists, first_change, first_moment


@dataclass(frozen=True, slots=True)
class ComingTime:
    """One coming tick, with a note if a DST change moved it, or dropped others before it."""

    at: datetime
    note: str | None


def describe(schedule: Schedule) -> str:
    """The expression in English words: "At 02:30, only on Monday"."""
    options = Options()
    options.use_24hour_time_format = True
    words = str(ExpressionDescriptor(schedule.spelled_out(), options).get_description())
    # The library does not know of `*/2 * mon`: on odd days that are Mondays.
    return words.replace(", or on ", ", only on ") if schedule.needs_both_days else words


def coming_times(schedule: Schedule, after: datetime, count: int) -> list[ComingTime]:
    """The next `count` ticks later than `after`."""
    times = [after]
    while len(times) <= count:
        times.append(schedule.next_after(times[-1]))
    return [ComingTime(at, _note(schedule, before, at)) for before, at in pairwise(times)]


def _note(schedule: Schedule, before: datetime, at: datetime) -> str | None:
    zone = schedule.zone
    wall = _wall(at, zone)
    if schedule.is_fixed_time and comes_twice(wall, zone):
        return f"{wall:%H:%M} comes twice: clocks go back. It fires at the first."
    if first_change(zone, before, at) is None:
        return None
    absent = [
        time for time in _wall_times(schedule, _wall(before, zone), wall) if not exists(time, zone)
    ]
    if not absent:
        return None
    times = ", ".join(f"{time:%H:%M}" for time in absent[:5]) + ("…" if absent[5:] else "")
    lost = f"Clocks go forward: there is no {times} on {absent[-1]:%Y-%m-%d}."
    moved = schedule.is_fixed_time and first_moment(absent[-1], zone) == at
    return f"{lost} It fires at {wall:%H:%M}." if moved else lost


def _wall_times(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """The times on the clock face that match the expression, whether or not they exist."""
    return takewhile(lambda wall: wall <= until, schedule.wall_times_after(after))


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)
