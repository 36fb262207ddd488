"""Makes the ids of all rows. They are UUIDv7, so that new rows go to the end of the primary key's index."""

import re
from contextvars import ContextVar
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from pipedai.redaction import redact_text


def new_id() -> UUID:
    """Returns a new id. The database can't make it, because sealing a secret needs the row's id before the INSERT."""
    return uuid7()


def first_id_at(moment: datetime) -> UUID:
    """Returns an id between those made before `moment` and those made later, to search a primary key by time."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return UUID(int=milliseconds << 80)


def moment_of(row_id: UUID) -> datetime:
    """Returns the time at which an id was made. Raises ValueError for a time after 9999, Python's last year."""
    return datetime.fromtimestamp((row_id.int >> 80) / 1000, UTC)


def ids_beginning_with(text: str) -> tuple[UUID, UUID] | None:
    """Returns the least and the greatest id that begin with a text of 8 to 32 hexadecimal digits and any hyphens, or
    None for another text.
    """
    digits = text.replace("-", "")
    if not re.fullmatch(r"[0-9A-Fa-f]{8,32}", digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


# The outer ASGI wrapper sets this variable for each request. Django's threads see it, because each runs in a copy of
# the request's context.
current_request_id: ContextVar[str] = ContextVar("request_id", default="")

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}")


def accept_or_make(sent: str | None) -> str:
    """Returns the caller's `X-Request-Id` if it is well-formed, else a new id. An id that contains one of our tokens is
    replaced too, because every log line and audit row shows the id.
    """
    if sent and _ACCEPTED.fullmatch(sent) and redact_text(sent) == sent:
        return sent
    return str(new_id())
