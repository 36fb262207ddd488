"""The fixtures that the tests of triggers and runs share."""

import pytest

from pipedai.sql import database_now
from testing.world.cast import Cast
from testing.world.runs import Runs


@pytest.fixture
def runs(cast: Cast) -> Runs:
    """Makes runs of a trigger with a webhook; see testing.world.runs."""
    return Runs.of(cast)


@pytest.fixture
def committed_runs(committed_cast: Cast) -> Runs:
    """Makes runs as the fixture `runs` does, but commits them to a database of the test's own. They come due by the
    real clock.
    """
    runs = Runs.of(committed_cast)
    runs.now = database_now()
    return runs
