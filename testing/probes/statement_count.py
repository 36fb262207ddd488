"""Counts the SQL statements of a block, as if the test ran in no transaction of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import connection
from django.test.utils import CaptureQueriesContext


@dataclass
class Statements:
    """The statements that ran, in order, without those that only begin or end a transaction."""

    sql: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sql)

    def __str__(self) -> str:
        return "\n".join(self.sql)


@contextmanager
def counted() -> Iterator[Statements]:
    """Yields a list that holds the statements of the block, once the block has ended."""
    statements = Statements()
    with CaptureQueriesContext(connection) as captured:
        yield statements
    statements.sql += [
        query["sql"]
        for query in captured.captured_queries
        if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT"))
    ]
