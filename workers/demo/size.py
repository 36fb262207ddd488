"""Says how much `seed_demo --scale` makes, and which schedules it chooses from."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

DAY_SECONDS: Final = 86_400
SPAN = timedelta(days=365)
# The share of runs that a schedule starts; people and keys start the others.
SCHEDULED_SHARE = 0.65

# Each cron expression (in UTC), with the seconds between two ticks and the seconds from midnight to the first tick.
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
    """How many runs and environments to make. Two seeds make two different ledgers."""

    runs: int
    environments: int
    seed: int

    @property
    def workspace(self) -> str:
        """The name of the workspace that holds them. A second call finds by it what the first call made."""
        return f"Scale: {self.runs} runs, {self.environments} environments, seed {self.seed}"

    def shares(self) -> list[float]:
        """Each environment's share of the runs. The shares differ, since a few customers have most of the runs."""
        weights = [(number + 1) ** -0.7 for number in range(self.environments)]
        return [weight / sum(weights) for weight in weights]


def ticks_between(schedule: str, begin: float, end: float) -> range:
    """The schedule's ticks at or after `begin` and before `end`, in whole seconds since 1970."""
    every, first = SCHEDULES[schedule]

    def at_or_after(moment: float) -> int:
        return first + int(-((first - moment) // every)) * every

    return range(at_or_after(begin), at_or_after(end), every)
