"""A primary with a standby that follows it by streaming replication, both of these tests' own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connections

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.replica import REPLICA
from pipedai.replica.reading import fitness
from testing.processes.own_postgres import own_postgres
from testing.processes.standby import as_superuser, standby_of
from testing.processes.worker_process import until


@dataclass
class Pair:
    """A primary and its standby."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres

    def catch_up(self) -> None:
        """Waits until the standby has replayed all that the primary has written."""
        ((position,),) = as_superuser(self.primary, "SELECT pg_current_wal_insert_lsn()")
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        until(lambda: as_superuser(self.standby, reached) == [(True,)])

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Makes the standby lag: it shows nothing of what is written within the block."""
        self.catch_up()
        as_superuser(self.standby, "SELECT pg_wal_replay_pause()")
        paused = "SELECT pg_get_wal_replay_pause_state()"
        until(lambda: as_superuser(self.standby, paused) == [("paused",)])
        try:
            yield
        finally:
            as_superuser(self.standby, "SELECT pg_wal_replay_resume()")


@pytest.fixture(scope="module")
def pair(kept_cluster: Path) -> Iterator[Pair]:
    with own_postgres(kept_cluster) as primary, standby_of(primary) as standby:
        yield Pair(primary, standby)


@pytest.fixture
def replicated(pair: Pair, django_db_setup: None, django_db_blocker, settings) -> Iterator[Pair]:
    """Lets this process use the primary as its database and the standby as its read replica, as the settings would."""
    settings.DATABASE_ROUTERS = ["pipedai.replica.ReplicaRouter"]
    fitness.found("ok")
    fitness.try_again()
    with (
        django_db_blocker.unblock(),
        _database("default", pair.primary),
        _database(REPLICA, pair.standby),
    ):
        yield pair


@contextmanager
def _database(alias: str, server: EmbeddedPostgres) -> Iterator[None]:
    usual = connections.databases["default"]
    before = connections.databases.get(alias)
    _forget_connection(alias)
    connections.databases[alias] = {**usual, "NAME": "pipedai"} | _address(server)
    try:
        yield
    finally:
        _forget_connection(alias)
        if before is None:
            del connections.databases[alias]
        else:
            connections.databases[alias] = before


def _address(server: EmbeddedPostgres) -> dict[str, object]:
    params = server.connection_params()
    return {
        "ENGINE": "pipedai.database",
        "HOST": params["host"],
        "PORT": params["port"],
        "USER": params["user"],
        "PASSWORD": params["password"],
    }


def _forget_connection(alias: str) -> None:
    if alias in connections.databases:
        connections[alias].close()
        del connections[alias]
