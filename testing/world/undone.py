"""Lets many cases of one test begin with the same rows, which costs less than a test for each."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from testing.probes import leaks


@contextmanager
def undone() -> Iterator[None]:
    """Undoes what the block does to the database, after the watch for leaked secrets has looked at it."""
    with transaction.atomic():
        yield
        if not connection.needs_rollback:
            leaks.look_before_undoing()
        transaction.set_rollback(True)
