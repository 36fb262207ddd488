"""Fixtures for the server's tests."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def events(self, logger: str) -> list[dict]:
        """What our code logged through a logger."""
        return [r.msg for r in self.records if r.name == logger and isinstance(r.msg, dict)]


@pytest.fixture
def logged() -> Iterator[_Lines]:
    """Every record that reaches the root logger."""
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    yield lines
    logging.getLogger().removeHandler(lines)
