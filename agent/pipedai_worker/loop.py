"""Polls for runs and gives each a thread, until told to stop; lets them finish or ends them."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Union
from uuid import uuid4

from pipedai_worker import recovery
from pipedai_worker.api import Api, ApiError, NotOurApi, Refused, TokenRefused, Unavailable
from pipedai_worker.assigned import AssignedRun
from pipedai_worker.backoff import Backoff, jittered
from pipedai_worker.executors.base import Executor
from pipedai_worker.journal import HeldRun, Journal
from pipedai_worker.logs import get_logger
from pipedai_worker.patience import GaveUp, Outage
from pipedai_worker.run import Run, Surroundings
from pipedai_worker.stopping import StopReason

log = get_logger(__name__)

# Under the 30 s after which common routers give up on a silent request.
WAIT_SECONDS = 25.0
# A poll that came back empty sooner than this was not held: the next one waits for the rest of it.
SHORTEST_EMPTY_POLL_SECONDS = 5.0
# A run that could not be claimed may be handed out again at once.
UNCLAIMED_PAUSE_SECONDS = 2.0
# After the drain: SIGTERM and SIGKILL for what still runs, an attempt to report it. With the
# default drain this stays below the 30 s that supervisors give.
LEAVE_SECONDS = 4.5
CLOCK_TOLERANCE_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """How to run: `max_concurrency` None leaves it to the API, `once` ends when nothing is due."""

    max_concurrency: int | None
    drain_seconds: float
    once: bool
    pass_env: tuple[str, ...] = ()


class Fatal(Exception):  # noqa: N818 - the end, with a sentence for the operator
    """The worker can't go on; `cause` says why."""

    def __init__(self, cause: ApiError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True)
class _Polled:
    runs: list[AssignedRun]
    seconds: float


@dataclass(frozen=True)
class _PollFailed:
    error: ApiError


@dataclass(frozen=True)
class _Claimed:
    """A run's claim was answered: the next poll does not hand it out again."""

    run_id: str


@dataclass(frozen=True)
class _Ended:
    """A thread ended: a run's, or the one that settles what was left (None)."""

    run: Run | None
    error: ApiError | None


@dataclass(frozen=True)
class _Signalled:
    number: int


_Message = Union[_Polled, _PollFailed, _Claimed, _Ended, _Signalled]


class Loop:
    """One worker at work. `run()` once."""

    def __init__(self, api: Api, journal: Journal, executor: Executor, settings: Settings) -> None:
        self._api = api
        self._journal = journal
        self._settings = settings
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._draining = threading.Event()
        self._leaving = threading.Event()
        self._surroundings = Surroundings(
            api,
            journal,
            executor,
            settings.pass_env,
            draining=self._draining.wait,
            leaving=self._leaving.wait,
            claimed=lambda run_id: self._inbox.put(_Claimed(run_id)),
        )
        self._runs: dict[str, Run] = {}
        self._claiming: set[str] = set()
        self._settling = 0
        self._unanswered: dict[str, HeldRun] = {}
        self._polling = False
        self._polled = False
        self._poll_at = 0.0
        self._backoff = Backoff()
        self._outage = Outage()
        self._clock_warned = False
        # While draining: when to stop what still runs, and when to leave whatever happens.
        self._stop_at = self._leave_at = float("inf")
        self._failure: ApiError | None = None

    def run(self) -> None:
        """Work until a signal, or until there is nothing left with `once`. Raises Fatal."""
        self._unanswered = recovery.clean_up(self._journal)
        if self._journal.outcomes():
            self._settle(
                partial(recovery.report_spooled, self._api, self._journal, self._leaving.wait)
            )
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            while not self._finished():
                self._step()
        finally:
            self._leaving.set()
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self._failure is not None:
            raise Fatal(self._failure)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # SimpleQueue.put may interrupt itself; locks and events may not.
        self._inbox.put(_Signalled(number))

    def _finished(self) -> bool:
        busy = bool(self._runs) or self._settling > 0
        if self._draining.is_set():
            return not busy or time.monotonic() >= self._leave_at
        return self._settings.once and self._polled and not busy and not self._polling

    def _step(self) -> None:
        now = time.monotonic()
        if now >= self._stop_at:
            self._stop_all(StopReason.SHUTDOWN)
        if self._may_poll() and now >= self._poll_at:
            self._begin_poll()
        due = [self._stop_at, self._leave_at]
        if self._may_poll():
            due.append(self._poll_at)
        timeout = min(due) - now
        try:
            # Bounded, for the platforms where a signal does not wake a wait.
            message = self._inbox.get(timeout=min(max(timeout, 0.0), 1.0))
        except queue.Empty:
            return
        self._handle(message)

    def _handle(self, message: _Message) -> None:
        if isinstance(message, _Signalled):
            self._on_stop_signal(message.number)
        elif isinstance(message, _Polled):
            self._polling = False
            self._take(message)
        elif isinstance(message, _PollFailed):
            self._polling = False
            self._on_poll_failure(message.error)
        elif isinstance(message, _Claimed):
            self._claiming.discard(message.run_id)
        else:
            self._on_ended(message)

    # --- Polling ---------------------------------------------------------------------------------

    def _may_poll(self) -> bool:
        if self._polling or self._claiming or self._draining.is_set():
            return False
        if self._settings.once and (self._polled or self._settling):
            return False
        limit = self._settings.max_concurrency
        return limit is None or len(self._runs) < limit

    def _begin_poll(self) -> None:
        # The first one does not wait: it shows at once whether URL and token are good.
        wait = WAIT_SECONDS if self._polled and not self._settings.once else 0.0
        self._polling = True
        self._spawn("poll", lambda: self._inbox.put(self._poll(wait)))

    def _poll(self, wait: float) -> _Message:
        began = time.monotonic()
        try:
            return _Polled(self._api.poll(wait), time.monotonic() - began)
        except ApiError as error:
            return _PollFailed(error)
        except Exception as error:
            log.exception("the poll failed")
            return _PollFailed(Unavailable(f"the poll failed: {type(error).__name__}"))

    def _take(self, polled: _Polled) -> None:
        self._backoff.reset()
        self._outage.answered()
        self._check_clock()
        first, self._polled = not self._polled, True
        if first:
            log.info("connected to %s", self._api.url)
        now = time.monotonic()
        fresh = [run for run in polled.runs if run.id not in self._runs]
        if fresh or first:
            self._poll_at = now
        else:
            self._poll_at = now + max(0.0, jittered(SHORTEST_EMPTY_POLL_SECONDS) - polled.seconds)
        for assigned in fresh:
            limit = self._settings.max_concurrency
            if limit is not None and len(self._runs) >= limit:
                break
            if not self._draining.is_set():
                self._begin_run(assigned)
        self._settle_unanswered()

    def _settle_unanswered(self) -> None:
        for held in self._unanswered.values():
            self._settle(
                partial(recovery.settle_claim, self._api, self._journal, held, self._leaving.wait)
            )
        self._unanswered = {}

    def _on_poll_failure(self, error: ApiError) -> None:
        # Once the API has answered, another page in its place passes, as a proxy's would.
        if isinstance(error, Unavailable) or (self._polled and isinstance(error, NotOurApi)):
            self._outage.failed(error)
            self._poll_at = time.monotonic() + self._backoff.next_delay(error.retry_after)
        else:
            self._fail(error)

    def _check_clock(self) -> None:
        offset = self._api.clock_offset
        if offset is not None and abs(offset) > CLOCK_TOLERANCE_SECONDS and not self._clock_warned:
            self._clock_warned = True
            direction = "behind" if offset > 0 else "ahead of"
            log.warning(
                "this machine's clock is %.0f s %s the API's; set it right", abs(offset), direction
            )

    # --- Runs ------------------------------------------------------------------------------------

    def _begin_run(self, assigned: AssignedRun) -> None:
        # A claim that was never answered is repeated with its own id.
        held = self._unanswered.pop(assigned.id, None)
        run = Run(assigned, held.claim_id if held else uuid4().hex, self._surroundings)
        self._runs[assigned.id] = run
        self._claiming.add(assigned.id)
        self._spawn(f"run {assigned.id}", lambda: self._in_thread(run, run.live))

    def _settle(self, work: Callable[[], None]) -> None:
        self._settling += 1
        self._spawn("settle", lambda: self._in_thread(None, work))

    def _in_thread(self, run: Run | None, work: Callable[[], None]) -> None:
        error: ApiError | None = None
        try:
            work()
        except ApiError as caught:
            error = caught
        except GaveUp:
            pass
        except OSError as caught:
            log.error("the worker's files can't be written: %s", caught)
        except Exception:
            log.exception("a run's thread failed")
        finally:
            self._inbox.put(_Ended(run, error))

    def _on_ended(self, ended: _Ended) -> None:
        if ended.run is None:
            self._settling -= 1
        else:
            self._runs.pop(ended.run.assigned.id, None)
            self._claiming.discard(ended.run.assigned.id)
            if not ended.run.claimed:
                pause = time.monotonic() + jittered(UNCLAIMED_PAUSE_SECONDS)
                self._poll_at = max(self._poll_at, pause)
        if ended.error is not None:
            self._fail(ended.error)

    @staticmethod
    def _spawn(name: str, work: Callable[[], None]) -> None:
        # Daemons: none of them may keep a worker from leaving in time.
        threading.Thread(target=work, name=name, daemon=True).start()

    # --- Stopping --------------------------------------------------------------------------------

    def _on_stop_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._draining.is_set():
            log.warning("%s again: stopping at once", name)
            self._stop_at = time.monotonic()
        else:
            if self._runs:
                log.info("%s: up to %g s for what is in hand", name, self._settings.drain_seconds)
            else:
                log.info("%s: stopping", name)
            self._drain(self._settings.drain_seconds)

    def _drain(self, seconds: float) -> None:
        self._draining.set()
        self._stop_at = min(self._stop_at, time.monotonic() + seconds)
        self._leave_at = self._stop_at + LEAVE_SECONDS

    def _stop_all(self, reason: StopReason) -> None:
        self._leave_at = min(self._leave_at, time.monotonic() + LEAVE_SECONDS)
        self._stop_at = float("inf")
        for run in self._runs.values():
            run.stop.request(reason)

    def _fail(self, error: ApiError) -> None:
        """The worker can't go on: end everything, and have `run()` say why."""
        if self._failure is None:
            self._failure = error
            self._drain(0.0)
            reason = (
                StopReason.TOKEN_REFUSED
                if isinstance(error, (TokenRefused, Refused))
                else StopReason.SHUTDOWN
            )
            self._stop_all(reason)
