"""Does work from one queue in a group of long-lived threads. Each thread keeps its database connection between two
pieces of work.
"""

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from django.db import connection

T = TypeVar("T")

# A thread that has had no work for this many seconds closes its database connection.
IDLE_SECONDS = 60.0


class Crew(Generic[T]):
    """Up to `most` threads, which call `work` with the items of a queue: with one after another, or with up to
    `at_once` if so many are waiting. `work` must not raise.

    A thread is started only when all others are busy, and lives until `stop`. The threads are daemons: the process can
    end without waiting for them. A thread opens a database connection only if `work` uses one.
    """

    def __init__(
        self, name: str, most: int, work: Callable[[list[T]], None], *, at_once: int = 1
    ) -> None:
        self._name, self._most, self._work, self._at_once = name, most, work, at_once
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # How many items are in the queue or being worked on.
        self._unfinished = 0

    def give(self, item: T) -> None:
        with self._lock:
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._most):
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put(item)

    def stop(self, seconds: float) -> None:
        """Lets the threads finish the work in the queue, close their database connections and end. Waits for their end
        for `seconds` at most.

        `give` may be called again afterwards. It then starts new threads.
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
        """Waits for an item, and works on it and those that wait with it. Returns whether the thread is to go on. An
        item may hold a secret, so it is not kept in memory while the thread waits for the next one.
        """
        try:
            item = self._queue.get(timeout=IDLE_SECONDS)
        except Empty:
            connection.close()
            return True
        if item is None:
            return False
        items = [item, *self._waiting()]
        try:
            self._work(items)
        finally:
            with self._lock:
                self._unfinished -= len(items)
        return True

    def _waiting(self) -> Iterator[T]:
        """Takes the items that wait in the queue, one less than a thread may work on at once."""
        for _ in range(self._at_once - 1):
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if item is None:  # A thread is to end, and this one has something to do before.
                self._queue.put(None)
                return
            yield item
