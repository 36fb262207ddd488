"""No tick is lost or decided twice when schedulers are killed at random."""

import pytest

from testing.processes.scheduler_kills import kill_schedulers
from testing.world.cast import Cast
from triggers.models import Tick


@pytest.mark.long
def test_every_tick_is_decided_once_and_every_fired_one_has_one_run(committed_cast: Cast) -> None:
    found = kill_schedulers(committed_cast, triggers=1000, seconds=18)
    assert found.wrong == {}
    assert found.ticks == found.triggers * found.minutes == 6000
    assert found.runs == found.fired > 0
    assert found.fired + found.missed + found.without_worker == found.ticks
    # For a trigger without a worker, one row stands for several ticks.
    assert Tick.objects.filter(decision="skipped_no_worker").count() < found.without_worker
    assert found.kills > 5
