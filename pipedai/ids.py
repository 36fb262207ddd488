"""Makes the ids of all rows. They are UUIDv7, so that new rows go to the end of the primary key's index."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Returns a new UUIDv7.

    The id is made here and not in the database, because sealing a secret needs the row's id.
    """
    return uuid7()


def first_id_at(moment: datetime) -> UUID:
    """Returns an id that sorts after each id made before `moment`, and before each id made from then on.

    It turns a range of times into a range of ids, which the index of a primary key can find.
    """
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return UUID(int=milliseconds << 80)


def moment_of(row_id: UUID) -> datetime | None:
    """Returns the approximate time at which an id was made, or None if the id is no UUIDv7 of ours."""
    if row_id.version != 7:
        return None
    try:
        return datetime.fromtimestamp((row_id.int >> 80) / 1000, UTC)
    except ValueError:  # Python has no times after the year 9999.
        return None
