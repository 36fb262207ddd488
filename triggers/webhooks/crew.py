"""Threads that live long and take work from one queue, each with a database connection that it keeps."""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from django.db import connection

T = TypeVar("T")

# A thread that has had nothing to do for so long closes its connection.
IDLE_SECONDS = 60.0


class Crew(Generic[T]):
    """At most `most` threads, each of which calls `work` with one item after another. `work` must not raise.

    A thread is started only when all others have work, and stays until `stop`. The threads are daemons: the process
    ends without waiting for them. A thread opens a database connection only if `work` uses one.
    """

    def __init__(self, name: str, most: int, work: Callable[[T], None]) -> None:
        self._name, self._most, self._work = name, most, work
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # How many items are in the queue or in a thread's hands.
        self._unfinished = 0

    def give(self, item: T) -> None:
        """Puts an item into the queue. Waits for nothing."""
        with self._lock:
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._most):
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put(item)

    def stop(self, seconds: float) -> None:
        """Ends the threads once the queue is empty, and closes their connections. Waits `seconds` for it at most.

        `give` may be called again afterwards: it starts new threads.
        """
        until = time.monotonic() + seconds
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        try:
            while self._do_next():
                pass
        finally:
            connection.close()

    def _do_next(self) -> bool:
        """Whether the thread goes on. The item, which may hold a secret, is not kept until the next one comes."""
        try:
            item = self._queue.get(timeout=IDLE_SECONDS)
        except Empty:
            connection.close()
            return True
        if item is None:
            return False
        try:
            self._work(item)
        finally:
            with self._lock:
                self._unfinished -= 1
        return True
