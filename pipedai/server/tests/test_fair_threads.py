"""Threads in which groups of calls take turns, and of which one group can't have all (SPEC §19)."""

import threading
import time
from collections import Counter
from functools import partial

from pipedai.server.fair_threads import FairThreads


class Calls:
    """Calls that note their group when they begin, and then wait until they may end."""

    def __init__(self, threads: int) -> None:
        self.began: list[str] = []
        self.ended = threading.Semaphore(0)
        self._may_end = threading.Semaphore(0)
        self._pool = FairThreads(threads)

    def submit(self, groups: str) -> None:
        for group in groups:
            self._pool.submit(group, partial(self._call, group))

    def end(self, count: int) -> None:
        for _ in range(count):
            self._may_end.release()
        for _ in range(count):
            assert self.ended.acquire(timeout=60)

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + 60
        while len(self.began) < count:
            assert time.monotonic() < until
            time.sleep(0.001)

    def _call(self, group: str) -> None:
        self.began.append(group)
        assert self._may_end.acquire(timeout=60)
        self.ended.release()


def test_groups_take_turns_and_each_keeps_its_own_order() -> None:
    calls = Calls(threads=1)
    calls.submit("aaaabbc")
    for count in range(1, 8):
        calls.wait_for(count)
        calls.end(1)
    # The first call begins at once, before any other has come.
    assert calls.began[1:] in (list("abcaba"), list("bcabaa"))


def test_a_quarter_of_the_threads_is_left_to_other_groups() -> None:
    calls = Calls(threads=4)
    calls.submit("a" * 9)
    calls.wait_for(3)
    calls.submit("bb")
    calls.wait_for(4)
    assert Counter(calls.began) == {"a": 3, "b": 1}
    calls.end(1)
    calls.wait_for(5)
    calls.end(10)
    assert Counter(calls.began) == {"a": 9, "b": 2}


def test_every_call_is_made_however_they_come() -> None:
    pool, made = FairThreads(3), threading.Semaphore(0)
    for number in range(2000):
        pool.submit(number % 7, made.release)
        if number % 100 == 0:
            time.sleep(0.002)  # so that the threads run out of calls now and then
    for _ in range(2000):
        assert made.acquire(timeout=60)
    until = time.monotonic() + 60
    while pool._busy:
        assert time.monotonic() < until
        time.sleep(0.001)
    assert not pool._held
    assert not pool._waiting
