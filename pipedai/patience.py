"""Takes locks without making others queue up: each wait for one is cut short, and the work done again later."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import DatabaseError, OperationalError, transaction

from pipedai.sql import execute, sqlstate

# How long a statement may wait for a lock, and with it all that queue up behind it. Web requests among them are refused
# after the two seconds of pipedai.timeouts, so it must be less.
LOCK_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# lock_not_available, deadlock_detected
_LOCK_STATES = {"55P03", "40P01"}

Say = Callable[[str], None]
Done = TypeVar("Done")


def patiently(work: Callable[[], Done], *, say: Say, what: str) -> Done:
    """What `work` returns: called in a transaction, again until it could have its locks, for as long as that takes.

    `say` is told each time that it could not; `what` names what is locked.
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
    """The statement that cuts waits for locks short, until its transaction ends."""
    return f"SET LOCAL lock_timeout = {seconds * 1000:.0f}"


def lacks_lock(error: DatabaseError) -> bool:
    """Whether the statement failed because it could not have a lock in time."""
    return sqlstate(error) in _LOCK_STATES
