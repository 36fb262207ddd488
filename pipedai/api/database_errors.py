"""Answers 503 for an error of the database that is not the request's fault (SPEC §19, §22).

The database rolls the failed transaction back. If the connection breaks during the COMMIT, however, nobody knows
whether the database did commit. So the client repeats the request. A request that must not take effect twice carries an
Idempotency-Key or a claim id, by which the service recognises the repetition.
"""

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Overloaded, Unavailable
from pipedai.logs import get_logger
from pipedai.sql import reason, sqlstate

log = get_logger(__name__)

BUSY = "The service is busy: try again."
AWAY = "The database can't do this at the moment: try again."
# The value of `Retry-After`. A database that is just starting needs some seconds, and earlier retries would add to its
# load.
AWAY_RETRY_SECONDS = 5

# The SQLSTATEs lock_not_available and query_canceled: PostgreSQL stopped the statement at a time-out that
# pipedai.timeouts sets.
_TIMED_OUT = {"55P03", "57014"}
# The SQLSTATEs deadlock_detected and serialization_failure. The client may try again, but the error is logged, because
# our transactions should lock rows in an order that causes no deadlock.
_COLLIDED = {"40P01", "40001"}
# The SQLSTATE classes that mean that the database can't work at present
# (https://www.postgresql.org/docs/current/errcodes-appendix.html): 08 the connection broke, 53 the disk or the memory
# is full or all connections are taken, 57 the server shuts down or starts, 58 the server can't read or write one of its
# own files.
_AWAY_CLASSES = {"08", "53", "57", "58"}
# read_only_sql_transaction: the node is a standby, or an operator made it read-only.
_READ_ONLY = "25006"
# idle_in_transaction_session_timeout and transaction_timeout: the server ended the session, because the request stood
# still in the middle of a transaction.
_SESSION_ENDED = {"25P03", "25P04"}


def is_read_only(error: BaseException) -> bool:
    """Tells whether a statement failed because its node of the database takes no writes."""
    return isinstance(error, DatabaseError) and sqlstate(error) == _READ_ONLY


def unavailable(error: BaseException) -> Unavailable | None:
    """Logs a failure of the database and returns the 503 to answer with, or returns None for any other error."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return None
    state = sqlstate(error)
    cause = type(error.__cause__).__name__
    if state in _TIMED_OUT:
        log.warning("database.timed_out", error=cause)
        return Overloaded(BUSY)
    if state in _COLLIDED:
        log.error("database.collided", error=cause, exc_info=error)
        return Overloaded(BUSY)
    if not _is_away(error, state):
        return None
    if not connection.in_atomic_block:
        # The connection is closed, so that the next query opens a new one. If DATABASE_URL names several hosts, that
        # connection goes to the new primary.
        connection.close()
    log.warning("database.unavailable", error=cause, sqlstate=state, reason=reason(error))
    return Unavailable(AWAY, code=ErrorCode.DATABASE_UNAVAILABLE, retry_after=AWAY_RETRY_SECONDS)


def _is_away(error: DatabaseError | InterfaceError, state: str | None) -> bool:
    if state is None:
        # The error is the driver's own: it could not connect, or the connection is closed. A wrong password is answered
        # like this too, because the driver tells no SQLSTATE when it can't connect. The log line has the reason.
        return isinstance(error, OperationalError | InterfaceError)
    return state == _READ_ONLY or state in _SESSION_ENDED or state[:2] in _AWAY_CLASSES
