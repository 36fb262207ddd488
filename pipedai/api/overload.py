"""Answers 503 when a statement ran into a time-out or a deadlock and its transaction was rolled back (SPEC §19)."""

from django.db import OperationalError

from pipedai.api.errors import Overloaded
from pipedai.logs import get_logger
from pipedai.sql import sqlstate

log = get_logger(__name__)

SENTENCE = "The service is busy: try again."

# lock_not_available and query_canceled: a time-out of pipedai.timeouts ended the statement.
_TIMED_OUT = {"55P03", "57014"}
# deadlock_detected and serialization_failure: a second try helps as well, but some code broke the order of locks.
_COLLIDED = {"40P01", "40001"}


def overload(error: BaseException) -> Overloaded | None:
    """Logs a time-out or deadlock and returns the error to answer with, or None for any other error."""
    if not isinstance(error, OperationalError):
        return None
    state = sqlstate(error)
    if state in _TIMED_OUT:
        log.warning("database.timed_out", error=type(error.__cause__).__name__)
    elif state in _COLLIDED:
        log.error("database.collided", error=type(error.__cause__).__name__, exc_info=error)
    else:
        return None
    return Overloaded(SENTENCE)
