"""Shows what a schedule will do: in words, its coming times, and what a DST change does to them (SPEC §5)."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice, pairwise

from cron_descriptor import ExpressionDescriptor, Options

from triggers.cron import Schedule
from triggers.wall_time import change_around, not_yet_shown


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
    return words.replace(", or on ", ", only on ") if schedule.face.needs_both_days else words


def coming_times(schedule: Schedule, after: datetime, count: int) -> list[ComingTime]:
    """The next `count` ticks later than `after`."""
    times = [after]
    while len(times) <= count:
        times.append(schedule.next_after(times[-1]))
    return [ComingTime(at, _note(schedule, before, at)) for before, at in pairwise(times)]


def _note(schedule: Schedule, before: datetime, at: datetime) -> str | None:
    """What clock changes did to the times between two ticks; if there were several, what the last one did."""
    zone, face = schedule.zone, schedule.face
    wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
    if schedule.is_fixed_time and change_around(wall, zone) is not None:
        return f"{wall:%H:%M} comes twice: clocks go back. It fires at the first."
    # A time that matches, and at which nothing fired, lies in a gap.
    first_absent, start = None, not_yet_shown(before, zone)
    while (absent := face.first_from(start)) < wall:
        gap = change_around(absent, zone)
        assert gap is not None
        first_absent, start = absent, gap.wall_after
    if first_absent is None:
        return None
    named = [f"{time:%H:%M}" for time in islice(face.between(first_absent, start), 6)]
    times = ", ".join(named[:5]) + ("…" if named[5:] else "")
    lost = f"Clocks go forward: there is no {times} on {first_absent:%Y-%m-%d}."
    return f"{lost} It fires at {wall:%H:%M}." if schedule.is_fixed_time else lost
