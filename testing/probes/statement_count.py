"""Counts the SQL statements of a block, as a connection outside any transaction would see them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import connection
from django.test.utils import CaptureQueriesContext


@dataclass
class Statements:
    """The statements that ran, in order; those that only bound a transaction are left out."""

    sql: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sql)

    def __str__(self) -> str:
        return "\n".join(self.sql)


@contextmanager
def counted() -> Iterator[Statements]:
    """The statements of the block, complete when it ends."""
    statements = Statements()
    with CaptureQueriesContext(connection) as captured:
        yield statements
    statements.sql += [
        query["sql"]
        for query in captured.captured_queries
        if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT"))
    ]
