"""No tick is doubled or lost while schedulers are killed at random (SPEC §7)."""

import os

import pytest

from testing.processes.scheduler_kills import kill_schedulers
from testing.processes.web_process import url_of
from testing.world.cast import Cast
from triggers.models import Tick


@pytest.mark.slow
def test_every_tick_is_decided_once_and_every_fired_one_has_one_run(
    own_database: str, committed_cast: Cast
) -> None:
    environment = {**os.environ, "DATABASE_URL": url_of(own_database)}
    found = kill_schedulers(committed_cast, triggers=2000, seconds=18, environment=environment)
    assert found.wrong == {}
    assert found.ticks == found.triggers * found.minutes == 12_000
    assert found.runs == found.fired > 0
    assert found.fired + found.missed + found.without_worker == found.ticks
    # The rows of triggers without a worker stand for several ticks each.
    assert Tick.objects.filter(decision="skipped_no_worker").count() < found.without_worker
    assert found.kills > 5
