"""Fixtures for the server's tests."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.server.listen import Listener


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
def postgres() -> Iterator[EmbeddedPostgres]:
    """Makes a database server for this module alone, which may stop it."""
    # We don't use pytest's own directory, because the server's user could not reach it.
    folder = Path(tempfile.mkdtemp(prefix="pipedai-"))
    folder.chmod(0o755)
    postgres = EmbeddedPostgres(folder)
    postgres.ensure_running()
    yield postgres
    postgres.stop()
    shutil.rmtree(folder)
