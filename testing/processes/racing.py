"""Runs calls against each other on real connections, all at once or in an order that locks determine."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import pytest
from django.db import connection, connections

from pipedai.api.errors import ApiError
from pipedai.sql import fetch_one

T = TypeVar("T")

# Each race is run twice, once without the long tests. Each time has a database of its own, which takes longer to make
# than the race.
ROUNDS = (0, pytest.param(1, marks=pytest.mark.long))
_WAIT_SECONDS = 90


def at_once(*calls: Callable[[], T]) -> list[T | ApiError]:
    """Runs the calls at the same moment, each in a thread with a connection of its own.

    Returns what each call returned, or the ApiError that it raised, in the order of the calls. Any other error of a
    call, such as a deadlock or a broken constraint, is raised here.
    """
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | ApiError:
        try:
            _connect()
            barrier.wait(_WAIT_SECONDS)
            return call()
        except ApiError as refusal:
            return refusal
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def accepted(answers: list[T | ApiError]) -> list[T]:
    """Returns the answers. Raises the first ApiError among them, because none may be a refusal."""
    for answer in answers:
        if isinstance(answer, ApiError):
            raise answer
    return [answer for answer in answers if not isinstance(answer, ApiError)]


def _connect() -> int:
    """Opens a connection for this thread, with time-outs that suit a test, and returns the pid of its backend."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, false)", [f"{_WAIT_SECONDS}s"])
    return int(connection.connection.info.backend_pid)


class Started(Generic[T]):
    """A call that runs in a thread with a connection of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._backend: Future[int] = Future()
        self._answer: Future[T] = Future()
        threading.Thread(target=self._run, daemon=True).start()

    def wait_until_blocked(self) -> None:
        """Returns once the call waits for a lock that another session holds. Fails if the call ends before."""
        backend = self._backend.result(_WAIT_SECONDS)
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self._is_blocked(backend):
            assert not self._answer.done(), "the call waited for nobody"
            assert time.monotonic() < deadline, "the call is neither done nor blocked"
            time.sleep(0.005)

    def answer(self) -> T | ApiError:
        """Waits for the call, and returns what it returned or the ApiError that it raised."""
        try:
            return self._answer.result(_WAIT_SECONDS)
        except ApiError as refusal:
            return refusal

    def _run(self) -> None:
        try:
            self._backend.set_result(_connect())
            self._answer.set_result(self._call())
        except BaseException as error:
            self._answer.set_exception(error)
        finally:
            connections.close_all()

    @staticmethod
    def _is_blocked(backend: int) -> bool:
        row = fetch_one(
            "SELECT cardinality(pg_blocking_pids(%(pid)s)) > 0 AS blocked", {"pid": backend}
        )
        return row is not None and bool(row["blocked"])
