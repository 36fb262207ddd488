"""What the tests of triggers and runs share."""

from collections.abc import Iterator

import pytest

from pipedai.sql import database_now
from testing.cast import Cast
from testing.runs import Runs
from triggers.tests.receivers import Receiver, receiving


@pytest.fixture
def runs(cast: Cast) -> Runs:
    """Runs of a trigger with a webhook; see testing.runs."""
    return Runs.of(cast)


@pytest.fixture
def committed_runs(committed_cast: Cast) -> Runs:
    """The same, committed in the test's own database and due by its real clock."""
    runs = Runs.of(committed_cast)
    runs.now = database_now()
    return runs


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    """A receiver on the loopback, which webhooks may reach for once."""
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    with receiving() as receiver:
        yield receiver
