"""The due times of a trigger: those of its schedule, and the single one of its `runOnceAt` (SPEC §25)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from pipedai.sql import Row
from triggers.schedules.cron import Schedule, Ticks

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class DueTimes:
    """The schedule or the single due time, a whole minute, or both. A time that both name is one due time."""

    schedule: Schedule | None
    once: datetime | None

    @classmethod
    def of(cls, trigger: Row) -> Self:
        """`trigger` has `schedule`, `timezone` and `run_once_at`."""
        expression = trigger["schedule"]
        schedule = None if expression is None else Schedule(expression, trigger["timezone"])
        return cls(schedule, trigger["run_once_at"])

    def next_after(self, moment: datetime) -> datetime | None:
        """Returns the first due time later than `moment`, or None. Raises as the schedule does, here and below."""
        coming = [self.schedule.next_after(moment)] if self.schedule else []
        if self.once is not None and self.once > moment:
            coming.append(self.once)
        return min(coming, default=None)

    def ticks(self, first: datetime, until: datetime) -> Ticks:
        """Returns the due times in [first, until]; `first` must be one."""
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
