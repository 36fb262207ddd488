"""Fixtures for the server's tests."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.server.listen import Listener
from testing.processes.own_postgres import own_postgres


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def listener() -> Listener:
    """Returns a listener that gets its notifications from the test, and counts as connected to the database."""

    async def never() -> AsyncConnection:
        raise AssertionError("nobody connects here")

    listener = Listener(never)
    listener.healthy = True
    return listener


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def events(self, logger: str) -> list[dict]:
        """Returns the events that our code logged through a logger."""
        return [r.msg for r in self.records if r.name == logger and isinstance(r.msg, dict)]


@pytest.fixture
def logged() -> Iterator[_Lines]:
    """Collects every record that reaches the root logger."""
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    yield lines
    logging.getLogger().removeHandler(lines)


@pytest.fixture(scope="module")
def postgres(kept_cluster: Path) -> Iterator[EmbeddedPostgres]:
    """Makes a database server for this module alone, which may stop it."""
    with own_postgres(kept_cluster) as postgres:
        yield postgres
