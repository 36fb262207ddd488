"""A bounded pool of threads in which groups of calls take turns (SPEC §19)."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

Call = Callable[[], object]

_NONE = object()


class FairThreads:
    """Runs each call in one of `threads` threads, to its end.

    A waiting group has its next call begun when every other waiting group has had one begun. One group holds three
    quarters of the threads at most, because all of its calls may wait for one locked row. A thread that ends a call
    takes the next one by itself, because a round trip through the event loop costs as much as a short call.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._most_of_a_group = threads - threads // 4
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        self._lock = Lock()
        # How many threads are at work, and how many of them for each group.
        self._busy = 0
        self._held: Counter[Hashable] = Counter()
        # The groups in the order of their next turns, each with its waiting calls.
        self._waiting: OrderedDict[Hashable, deque[Call]] = OrderedDict()

    def submit(self, group: Hashable, call: Call) -> None:
        """Have the call made, by the next thread that is free for its group. The call must not raise."""
        with self._lock:
            self._waiting.setdefault(group, deque()).append(call)
            if self._busy == self._threads:
                return
            self._busy += 1
        self._pool.submit(self._work)

    def _work(self) -> None:
        """In a thread: make calls until none is left that may be begun."""
        group: Hashable = None
        held = False
        while (taken := self._next(group, held=held)) is not None:
            group, call = taken
            held = True
            call()

    def _next(self, last: Hashable, *, held: bool) -> tuple[Hashable, Call] | None:
        """The call whose turn it is; None ends the thread's work. `last` is the group whose call it has just made."""
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
