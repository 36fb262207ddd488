"""The one exception of the embedded server, always with a sentence for the operator."""

from collections.abc import Iterator
from contextlib import contextmanager


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used; its message is one sentence on why, free of secrets."""


@contextmanager
def explaining(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into a sentence: `doing` completes "Cannot …"."""
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(f"Cannot {doing}: {error.strerror or error}.") from error
