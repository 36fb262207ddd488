"""Tells of a statement that ran into a time-out or a deadlock: 503, once its transaction is rolled back (SPEC §19)."""

from django.db import OperationalError

from pipedai.api.errors import Overloaded
from pipedai.logs import get_logger
from pipedai.sql import sqlstate

log = get_logger(__name__)

SENTENCE = "The service is busy: try again."

# lock_not_available, query_canceled: what pipedai.timeouts is for.
_TIMED_OUT = {"55P03", "57014"}
# deadlock_detected, serialization_failure: also gone at the next try, but somebody broke the order of locks.
_COLLIDED = {"40P01", "40001"}


def overload(error: BaseException) -> Overloaded | None:
    """The answer to a request that the error ended, which is logged; None for an error of another kind."""
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
