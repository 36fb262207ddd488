"""Answers 503 if a SQL statement ended by a time-out or a deadlock, which rolled its transaction back (SPEC §19)."""

from django.db import OperationalError

from pipedai.api.errors import Overloaded
from pipedai.logs import get_logger
from pipedai.sql import sqlstate

log = get_logger(__name__)

SENTENCE = "The service is busy: try again."

# PostgreSQL's codes lock_not_available and query_canceled: a time-out of pipedai.timeouts ended the statement.
_TIMED_OUT = {"55P03", "57014"}
# PostgreSQL's codes deadlock_detected and serialization_failure. The client may try again, but a deadlock shows that
# some code takes locks in the wrong order.
_COLLIDED = {"40P01", "40001"}


def overload(error: BaseException) -> Overloaded | None:
    """Logs a time-out or deadlock of the database, and returns the 503 to answer with.

    Returns None for any other error.
    """
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
