"""The fixtures that the tests of triggers and runs share."""

import pytest

from pipedai.sql import database_now
from testing.world.cast import Cast
from testing.world.runs import Runs


@pytest.fixture
def runs(cast: Cast) -> Runs:
    """Runs of a trigger with a webhook; see testing.world.runs."""
    return Runs.of(cast)


@pytest.fixture
def committed_runs(committed_cast: Cast) -> Runs:
    """Runs like those of `runs`, but committed in the test's own database and due by its real clock."""
    runs = Runs.of(committed_cast)
    runs.now = database_now()
    return runs
