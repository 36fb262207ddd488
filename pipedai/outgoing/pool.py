"""Works off queues, such as those of messages, in threads of the scheduler. The number of rows in work at one time is
limited for each queue and each host.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from django.db import close_old_connections, connection

from pipedai import timeouts
from pipedai.logs import get_logger
from pipedai.loop import Job, register_job
from pipedai.outgoing import attempts
from pipedai.outgoing.due import Memory, Taker, claim_due, taker_of
from pipedai.outgoing.kinds import Kind, Queue
from pipedai.outgoing.posts import Answer, Result
from pipedai.sql import Row

T = TypeVar("T")

# A thread that has had no work for this many seconds closes its database connection.
IDLE_SECONDS = 60.0


class Crew(Generic[T]):
    """Up to `most` threads, which call `work` with up to `at_once` items of a queue. `work` must not raise. A thread is
    started only when all others are busy, and lives until `stop`, but does not keep the process alive.
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
        """Raises RuntimeError if the system has no thread left. The item then waits for the next thread."""
        with self._lock:
            self._queue.put(item)
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._most):
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self, seconds: float) -> None:
        """Lets the threads finish the queue and end, within `seconds`. A later `give` starts new threads."""
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
        """Returns whether the thread shall go on. While it waits it keeps no item, as an item may hold a secret."""
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
        """Takes more items that wait in the queue, so many that the thread has at most `_at_once` with its first."""
        for _ in range(self._at_once - 1):
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if item is None:  # The None asks some thread to end; the items come first.
                self._queue.put(None)
                return
            yield item


log = get_logger(__name__)

# A claimed message that was sent, and the answer.
Sent = tuple[Row, Answer]

# For how many seconds `finish` waits for messages that are being sent. After SIGTERM the process has 5 s for
# everything.
STOP_SECONDS = 3.0
# For how many seconds `finish` waits until idle threads have ended.
_GOODBYE_SECONDS = 0.5
# An attempt that fails sooner than this says nothing about whether the host is slow.
_SOON_SECONDS = 1.0
# How often a scheduler looks for due messages of a kind, in seconds.
_EVERY_SECONDS = 0.25

_registered: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    """Registers the job that sends messages of this kind, in the app's module `ready`."""
    if kind.name in _registered:
        raise ValueError(f"There is a kind {kind.name} already.")
    _registered[kind.name] = kind
    name = kind.name.replace("_", " ")
    register_job(
        Senders(kind).job(
            f"send-{kind.name}s", does=f"Sends the due {name}s, on threads of their own."
        )
    )


def registered_kinds() -> tuple[Kind, ...]:
    return tuple(_registered.values())


class Lane(ABC):
    """Threads that work off one queue, each on one row at a time. A lane claims only rows that a thread can begin at
    once, within the limits of `claim_due`, and remembers which workspaces it has served. If the process ends, its
    unfinished rows come due again when their claims expire.
    """

    # The name of the lane's threads.
    name: str

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._busy: Counter[Taker] = Counter()
        self._memory = Memory()
        self._changed = threading.Condition()
        self._crew = Crew(self.name, queue.shares, self._begin)

    def job(self, name: str, *, does: str) -> Job:
        return Job(
            name,
            _EVERY_SECONDS,
            self.top_up,
            does=does,
            turns=f"due rows of `{self._queue.table}`, within shares of each host",
            finish=self.finish,
            is_busy=self.is_busy,
        )

    def top_up(self) -> int:
        """Claims the rows that threads can begin with now, and lets them begin. Returns the number of rows."""
        with self._changed:
            busy = dict(self._busy)
        room = self._queue.shares - sum(busy.values())
        if room <= 0:
            return 0
        claimed = claim_due(
            self._queue,
            room=room,
            busy=busy,
            per_host=self._queue.per_host,
            memory=self._memory,
        )
        for row in claimed:
            with self._changed:
                self._busy[taker_of(row)] += 1
            self._crew.give(row)
        return len(claimed)

    def is_busy(self) -> bool:
        with self._changed:
            return bool(self._busy)

    def wait(self, seconds: float = STOP_SECONDS) -> bool:
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._busy, seconds)
            if not idle:
                log.info("lane.left_claimed", lane=self.name, rows=self._busy.total())
        return idle

    def finish(self) -> None:
        """Waits `STOP_SECONDS` at most for rows in work, and ends the idle threads."""
        if self.wait():
            self._crew.stop(_GOODBYE_SECONDS / 2)

    def _begin(self, rows: list[Row]) -> None:
        (row,) = rows
        self._do(row)

    @abstractmethod
    def _do(self, row: Row) -> None:
        """Does the work for a claimed row, in a thread. It must raise nothing, and must lead to a call of `_leave`."""

    def _remember(self, host: str, *, answered: bool, seconds: float) -> None:
        """Remembers whether the host answers. A quick failure is ignored: one tenant's URL may have a wrong port."""
        if answered or seconds >= _SOON_SECONDS:
            self._memory.note(host, answered=answered)

    def _leave(self, row: Row) -> None:
        with self._changed:
            taker = taker_of(row)
            self._busy[taker] -= 1
            if not self._busy[taker]:
                del self._busy[taker]
            self._changed.notify_all()


class Senders(Lane):
    """Sends the messages of one kind, on threads of its own. Further threads record the answers."""

    def __init__(self, kind: Kind) -> None:
        self.name = f"{kind.name}-sender"
        super().__init__(kind)
        self._kind = kind
        self._recording = Crew(
            f"{kind.name}-recorder", kind.recorders, self._record, at_once=kind.recorded_at_once
        )

    def finish(self) -> None:
        super().finish()
        if not self.is_busy():
            self._recording.stop(_GOODBYE_SECONDS / 2)

    def _do(self, row: Row) -> None:
        try:
            answer = attempts.send(self._kind, row)
        except Exception:
            # The message is still claimed. When the claim expires, it comes due and is sent again.
            log.exception(self._kind.event("not_recorded"), **self._kind.naming(row))
            self._leave(row)
        else:
            self._note(row["host"], answer)
            self._recording.give((row, answer))

    def _note(self, host: str, answer: Answer) -> None:
        # A failure of our own mail server says nothing about the host.
        if answer.result is not Result.AWAY:
            seconds = answer.duration_ms / 1000
            self._remember(host, answered=answer.error is None, seconds=seconds)

    def _record(self, sent: list[Sent]) -> None:
        """Records the answers of delivered messages in one transaction, and every other answer in its own."""
        taken = [each for each in sent if each[1].result is Result.TAKEN]
        alone = sent
        if len(taken) > 1 and self._could_record(taken):
            alone = [each for each in sent if each[1].result is not Result.TAKEN]
        for each in alone:
            if not self._could_record([each]):
                # The message is still claimed. When the claim expires, it comes due and is sent again.
                self._leave(each[0])

    def _could_record(self, sent: list[Sent]) -> bool:
        """Records the answers in one transaction, and frees the shares. Returns False if that failed."""
        try:
            close_old_connections()
            with timeouts.overriding(timeouts.SENDER):
                attempts.record(self._kind, sent)
        except Exception:
            if len(sent) == 1:
                log.exception(self._kind.event("not_recorded"), **self._kind.naming(sent[0][0]))
            return False
        for row, _ in sent:
            self._leave(row)
        return True
