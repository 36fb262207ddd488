"""Previews due times: a schedule in English, what comes next, and how clock changes affect it (SPEC §5, §25)."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from cron_descriptor import ExpressionDescriptor, Options

from triggers.schedules.cron import Due, Schedule


@dataclass(frozen=True, slots=True)
class ComingTime:
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
        due = schedule.due_after(after)
        times.append(ComingTime(due.at, _note(schedule, due)))
        after = due.at
    return times


def with_single(times: list[ComingTime], once: datetime, count: int) -> list[ComingTime]:
    """Returns the first of these times and a single one. A time that both name is one due time."""
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
