"""The calls with which the tests of explanations bring states about."""

import pytest

from testing.processes.explain_calls import Calls
from testing.world.cast import Cast


@pytest.fixture
def calls(cast: Cast) -> Calls:
    """The worker has just polled, so it is online."""
    made = Calls(cast)
    assert made.worker.poll().json()["runs"] == []
    return made
