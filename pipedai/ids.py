"""Makes the ids of all rows: UUIDv7, so that a primary key grows at its right-hand end."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A fresh UUIDv7. Made here and not in the database because sealing a secret needs the row's id first."""
    return uuid7()


def moment_of(row_id: UUID) -> datetime | None:
    """About when an id was made; None if it is not one of ours."""
    if row_id.version != 7:
        return None
    try:
        return datetime.fromtimestamp((row_id.int >> 80) / 1000, UTC)
    except ValueError:  # beyond the year 9999
        return None
