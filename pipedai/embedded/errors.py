"""The only exception of the embedded server. Its message is always a sentence for the operator."""

from collections.abc import Iterator
from contextlib import contextmanager


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used. The message is one sentence on the reason, and contains no secret."""


@contextmanager
def explaining(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into an EmbeddedPostgresError, whose sentence begins "Cannot" and `doing`."""
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(f"Cannot {doing}: {error.strerror or error}.") from error
