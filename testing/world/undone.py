"""Lets many cases of one test begin with the same rows, which costs less than a test for each."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction


@contextmanager
def undone() -> Iterator[None]:
    """Undoes what the block does to the database. The watch for leaked secrets does not see these rows at the end of
    the test, so a case that may store a secret needs a test of its own.
    """
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
