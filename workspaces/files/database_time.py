"""Bounds how long one plan or apply may keep the database busy, so that nobody waits for it for long."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection
from psycopg.errors import QueryCanceled

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.sql import execute

MOST_SECONDS = 5.0
_SET_TIMEOUT = "SELECT set_config('statement_timeout', %(milliseconds)s, true)"


@contextmanager
def limited_time() -> Iterator[None]:
    """Wraps what a transaction does. Raises Conflict once its statements have taken MOST_SECONDS together, or one
    alone.
    """
    spent = 0.0

    def measure(
        run: Callable[..., Any], statement: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        nonlocal spent
        # What this thread computes, such as the parameters' text, is no time of the database.
        began, own = time.monotonic(), time.thread_time()
        try:
            return run(statement, params, many, context)
        except OperationalError as error:
            if isinstance(error.__cause__, QueryCanceled):
                raise _too_much() from None
            raise
        finally:
            spent += time.monotonic() - began - (time.thread_time() - own)
            if spent > MOST_SECONDS:
                raise _too_much()

    with connection.execute_wrapper(measure):
        execute(_SET_TIMEOUT, {"milliseconds": str(int(1000 * MOST_SECONDS))})
        yield


def _too_much() -> Conflict:
    return Conflict(
        f"It keeps the database busy for more than {MOST_SECONDS:g} seconds: change less at once.",
        code=ErrorCode.TOO_MUCH_FOR_FILES,
    )
