"""Defines how many runs `seed_demo --scale` makes, and the schedules from which its triggers get theirs."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

DAY_SECONDS: Final = 86_400
SPAN = timedelta(days=365)
# The share of runs that a schedule starts. The other runs are started by users and by API keys.
SCHEDULED_SHARE = 0.65

# For each cron expression (in UTC): the seconds between two due times, and the seconds from midnight to the first.
SCHEDULES: Final = {
    "*/5 * * * *": (300, 0),
    "*/10 * * * *": (600, 0),
    "*/15 * * * *": (900, 0),
    "*/30 * * * *": (1800, 0),
    "7 * * * *": (3600, 7 * 60),
    "42 * * * *": (3600, 42 * 60),
    "30 6 * * *": (DAY_SECONDS, 390 * 60),
    "0 22 * * *": (DAY_SECONDS, 1320 * 60),
}


@dataclass(frozen=True, slots=True)
class Size:
    """How many runs and environments `seed_demo --scale` makes. Different seeds give different made-up figures."""

    runs: int
    environments: int
    seed: int

    @property
    def workspace(self) -> str:
        return f"Scale: {self.runs} runs, {self.environments} environments, seed {self.seed}"

    def shares(self) -> list[float]:
        """Returns each environment's share of the runs. The first environments have most, like a few big customers."""
        weights = [(number + 1) ** -0.7 for number in range(self.environments)]
        return [weight / sum(weights) for weight in weights]


def ticks_between(schedule: str, begin: float, end: float) -> range:
    """Returns the schedule's due times at or after `begin` and before `end`, in whole seconds since 1970."""
    every, first = SCHEDULES[schedule]

    def at_or_after(moment: float) -> int:
        return first + int(-((first - moment) // every)) * every

    return range(at_or_after(begin), at_or_after(end), every)
