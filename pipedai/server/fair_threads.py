"""A limited number of threads that make calls. Callers form groups, which take turns (SPEC §19).

For example, all requests of one client address are a group, so no address makes the others wait for long.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

Call = Callable[[], object]

_NONE = object()


class FairThreads:
    """Runs each call to its end in one of `threads` threads. Each call belongs to a group, and groups take turns.

    After a call of one group has started, each other group that has a waiting call starts one before that group's next.
    One group uses three quarters of the threads at most, because all its calls may wait for the same locked row. A
    thread that has ended a call takes the next one itself, because going through the event loop costs as much as a
    short call.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._most_of_a_group = threads - threads // 4
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        self._lock = Lock()
        # _busy is the number of threads that are making calls, and _held that number for each group.
        self._busy = 0
        self._held: Counter[Hashable] = Counter()
        # The calls that wait for a thread, by group, such as the client's address. The first group is the next whose
        # turn it is.
        self._waiting: OrderedDict[Hashable, deque[Call]] = OrderedDict()

    def submit(self, group: Hashable, call: Call) -> None:
        """Queue a call for the threads. The call must not raise.

        `group` is the group to which the call belongs, such as a client's address. A thread makes the call when the
        thread is free and it is the group's turn.
        """
        with self._lock:
            self._waiting.setdefault(group, deque()).append(call)
            if self._busy == self._threads:
                return
            self._busy += 1
        self._pool.submit(self._work)

    def _work(self) -> None:
        """Make waiting calls, one after another, in a thread of the pool.

        Return when no call waits, or when each group with a waiting call uses its full share of the threads already.
        """
        group: Hashable = None
        held = False
        while (taken := self._next(group, held=held)) is not None:
            group, call = taken
            held = True
            call()

    def _next(self, last: Hashable, *, held: bool) -> tuple[Hashable, Call] | None:
        """Return the next call to make and its group, or None if the thread has nothing to do.

        `held` tells whether the thread has just ended a call, and `last` is the group of that call.
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
