"""The fixtures that the tests of triggers and runs share."""

from typing import Any

import pytest

from pipedai.sql import database_now
from testing.world.cast import Cast, make_cast
from testing.world.kept_rows import Kept
from testing.world.runs import Runs


@pytest.fixture(scope="session")
def kept_runs(django_db_setup: None, django_db_blocker: Any) -> Kept[Runs]:
    """Makes the cast and the trigger whose rows the tests of runs get."""
    with django_db_blocker.unblock():
        return Kept.make(lambda: Runs.of(make_cast()))


@pytest.fixture
def cast(request: pytest.FixtureRequest, kept_cast: Kept[Cast], db: None) -> Cast:
    """Gives the test the cast, with the trigger of `runs` if the test takes that: see testing.world.cast."""
    if "runs_put_back" in request.fixturenames:
        runs: Runs = request.getfixturevalue("runs_put_back")
        return runs.cast
    return kept_cast.put_back()


@pytest.fixture
def runs_put_back(kept_runs: Kept[Runs], db: None) -> Runs:
    """Writes the rows of the cast and of one more trigger."""
    return kept_runs.put_back()


@pytest.fixture
def runs(runs_put_back: Runs) -> Runs:
    """Makes runs of a trigger with a webhook; see testing.world.runs."""
    return runs_put_back


@pytest.fixture
def committed_cast(
    request: pytest.FixtureRequest, kept_cast: Kept[Cast], own_database: str
) -> Cast:
    """Commits the cast in the test's own database, with the trigger of `committed_runs` if the test takes that."""
    if "committed_runs" in request.fixturenames:
        runs: Runs = request.getfixturevalue("committed_runs")
        return runs.cast
    return kept_cast.put_back()


@pytest.fixture
def committed_runs(kept_runs: Kept[Runs], own_database: str) -> Runs:
    """Makes runs as the fixture `runs` does, but commits them to a database of the test's own. They come due by the
    real clock.
    """
    runs = kept_runs.put_back()
    runs.now = database_now()
    return runs
