"""Makes the ids of all rows: UUIDv7, so that a primary key grows at its right-hand end."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A fresh UUIDv7. Made here and not in the database because sealing a secret needs the row's id first."""
    return uuid7()
