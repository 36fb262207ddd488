"""Metrics tell how the tokens of connections are kept fresh."""

from testing.world.cast import Cast
from testing.world.connections import add_oauth_connection, ago, lose_connection
from workspaces.connections.refreshing import RESULTS, refreshed
from workspaces.metrics import REFRESH_SECONDS, read_due, read_troubled


def figures() -> dict[str, float]:
    """Returns each figure by its name, or by the status that it is about."""
    return {
        sample.labels.get("status", family.name): sample.value
        for family in (*read_due(), *read_troubled())
        for sample in family.samples
    }


def test_connections_that_are_due_or_in_trouble_are_counted(cast: Cast) -> None:
    add_oauth_connection(cast)
    ago(add_oauth_connection(cast), 2460)
    lose_connection(add_oauth_connection(cast))
    add_oauth_connection(cast, status="failing", error="HTTP status 503")
    found = figures()
    assert 60 <= found.pop("pipedai_connection_overdue_seconds") < 3600
    assert found == {"pipedai_connections_due": 1, "failing": 1, "needs_login": 1}


def test_each_refresh_is_timed_by_its_result() -> None:
    before = REFRESH_SECONDS.labels(RESULTS[1])._sum.get()
    refreshed.send(sender=None, result=RESULTS[1], seconds=2.5)
    assert REFRESH_SECONDS.labels(RESULTS[1])._sum.get() == before + 2.5
