"""A bounded pool of threads in which groups of calls take turns, so that no group makes the others wait (SPEC §19)."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

Call = Callable[[], object]

_NONE = object()


class FairThreads:
    """Runs each call to its end in one of `threads` threads. Groups of calls take turns.

    A group may start its next call when every other waiting group has started one. One group uses three quarters of the
    threads at most, because all its calls may wait for the same locked row. A thread that has ended a call takes the
    next one itself, because going through the event loop costs as much as a short call.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._most_of_a_group = threads - threads // 4
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        self._lock = Lock()
        # The number of threads at work, in all and for each group.
        self._busy = 0
        self._held: Counter[Hashable] = Counter()
        # The waiting calls of each group. The group whose turn is next comes first.
        self._waiting: OrderedDict[Hashable, deque[Call]] = OrderedDict()

    def submit(self, group: Hashable, call: Call) -> None:
        """Hand over a call of this group.

        The next thread that is free for the group makes the call, which must not raise.
        """
        with self._lock:
            self._waiting.setdefault(group, deque()).append(call)
            if self._busy == self._threads:
                return
            self._busy += 1
        self._pool.submit(self._work)

    def _work(self) -> None:
        """Make waiting calls, in a thread of the pool, until no call may start now."""
        group: Hashable = None
        held = False
        while (taken := self._next(group, held=held)) is not None:
            group, call = taken
            held = True
            call()

    def _next(self, last: Hashable, *, held: bool) -> tuple[Hashable, Call] | None:
        """Return the group and the call whose turn it is, or None if the thread has nothing to do.

        `last` is the group whose call the thread has just ended, if `held`.
        """
        with self._lock:
            if held:
                self._held[last] -= 1
                if not self._held[last]:
                    del self._held[last]
            allowed = (name for name in self._waiting if self._held[name] < self._most_of_a_group)
            group = next(allowed, _NONE)
            if group is _NONE:
                self._busy -= 1
                return None
            calls = self._waiting[group]
            call = calls.popleft()
            self._held[group] += 1
            if calls:
                self._waiting.move_to_end(group)
            else:
                del self._waiting[group]
            return group, call
