"""Runs work that needs locks without making others wait long.

The work gives up after a short wait for a lock, and is tried again later.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import DatabaseError, OperationalError, transaction

from pipedai.sql import execute, sqlstate

# How many seconds a statement may wait for a lock. All later statements that need the same lock wait behind it. So the
# time must be less than two seconds, the time-out that pipedai.timeouts sets for the locks of web requests.
LOCK_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# The SQLSTATEs lock_not_available and deadlock_detected.
_LOCK_STATES = {"55P03", "40P01"}

Say = Callable[[str], None]
Done = TypeVar("Done")


def patiently(work: Callable[[], Done], *, say: Say, what: str) -> Done:
    """Calls `work` in a transaction, again and again until it gets its locks, and returns its result.

    `say` is called with a message each time that `work` could not get its locks. `what` names the locked thing in that
    message.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            with transaction.atomic():
                execute(set_lock_timeout(LOCK_SECONDS), {})
                return work()
        except OperationalError as error:
            if not lacks_lock(error):
                raise
        say(f"Another transaction holds {what}: trying again in {pause:g} s.")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def set_lock_timeout(seconds: float) -> str:
    """Returns the SQL statement that limits each wait for a lock until the transaction ends."""
    return f"SET LOCAL lock_timeout = {seconds * 1000:.0f}"


def lacks_lock(error: DatabaseError) -> bool:
    """Whether the statement failed because it could not get a lock in time."""
    return sqlstate(error) in _LOCK_STATES
