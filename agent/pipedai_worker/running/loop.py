"""The worker's main loop: asks for runs, gives each a thread, and on a signal lets them finish or stops them."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

from pipedai_worker.api import (
    SIGN_OFF_SECONDS,
    Api,
    ApiError,
    GaveUp,
    NotOurApi,
    Outage,
    Refused,
    TokenRefused,
    Unavailable,
    clock_complaint,
    jittered,
)
from pipedai_worker.disk import journal
from pipedai_worker.disk.durable import logged
from pipedai_worker.disk.journal import Journal
from pipedai_worker.executors.base import Executor
from pipedai_worker.running.assigned import AssignedRun
from pipedai_worker.running.outcome import WAITING, Outcome
from pipedai_worker.running.reporting import Sender, Surroundings, report, send_left
from pipedai_worker.running.run import Run
from pipedai_worker.running.stopping import ROOM_SECONDS, StopReason, start_thread

log = logging.getLogger(__name__)


@dataclass
class InHand:
    """The runs in hand. Only the main thread calls the methods. When a thread ends, `_deliver` makes the main thread
    call `_on_ended` with the run, or None if it only reported, and the error that ends the worker, or None.
    """

    _around: Surroundings
    _deliver: Callable[[Callable[[], None]], None]
    _on_ended: Callable[[Run | None, ApiError | None], None]
    runs: dict[str, Run] = field(default_factory=dict)
    # The runs that are granted but not on disk yet, and those that wait although the API does not know it yet. While
    # there are any, the worker asks for no other run.
    claiming: set[str] = field(default_factory=set)
    settling: int = 0

    def launch(self, run: Run) -> None:
        self.runs[run.assigned.id] = run
        self.claiming.add(run.assigned.id)
        self._start(f"run {run.assigned.id}", lambda: self._in_thread(run, run.live))

    def settle_the_past(self) -> None:
        """Clean up after an earlier process of this worker, and report what it could not report."""
        around = self._around
        journal.clean_up(around.journal, around.executor)
        left = around.journal.events()
        for run_id, body in around.journal.outcomes().items():
            if body.get("status") == WAITING:
                # The worker must not take this run again before the report, which would end the new claim.
                self.claiming.add(run_id)
            self._settle(partial(self._report_left, run_id, body, left.pop(run_id, None)))
        if left:
            # Nothing waits for these events. What can't be sent before the worker exits stays on disk.
            self._start("events", lambda: send_left(around.api, left, around.leaving))

    def _report_left(self, run_id: str, body: dict[str, Any], events: Path | None) -> None:
        """Report a run of an earlier process, and then its events, which the API may not take before."""
        around = self._around
        try:
            status = report(around, run_id, body)
        finally:
            around.claimed(run_id)
        if events is not None:
            sender = Sender(around.api, run_id, events, around.leaving)
            sender.finish()
            sender.end(status)

    def hand_back(self, run_id: str, outcome: Outcome) -> None:
        """Report a run that was granted and that the worker does not begin."""
        # Until the claimId is dropped, the worker asks for nothing: another call with it would get this run again, or a
        # run whose claimId is then dropped too early.
        self.claiming.add(run_id)
        self._settle(partial(self._hand_back, run_id, outcome.body()))

    def _hand_back(self, run_id: str, body: dict[str, Any]) -> None:
        around = self._around
        try:
            with logged(f"run {run_id}: its outcome can't be kept on disk", logging.ERROR):
                around.journal.put_outcome(run_id, body)
                around.journal.drop_next_claim_id()
        finally:
            around.claimed(run_id)
        report(around, run_id, body)

    def _settle(self, work: Callable[[], None]) -> None:
        self.settling += 1
        self._start("settle", lambda: self._in_thread(None, work))

    def _start(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread, or let the main thread try again, which must not miss a signal while there is no room."""
        try:
            start_thread(name, work)
        except RuntimeError:
            time.sleep(ROOM_SECONDS)
            self._deliver(lambda: self._start(name, work))

    def _in_thread(self, run: Run | None, work: Callable[[], None]) -> None:
        error: ApiError | None = None
        try:
            work()
        except ApiError as caught:
            error = caught
        except GaveUp:
            # The API did not answer before the worker had to exit. The next start asks it again about the run.
            log.info("left to the next start: %s", run.assigned.id if run else "older runs")
        except OSError as caught:
            log.error("the worker's files can't be written: %s", caught)
        except Exception:
            log.exception("a run's thread failed")
        finally:
            self._deliver(lambda: self._end(run, error))

    def _end(self, run: Run | None, error: ApiError | None) -> None:
        if run is None:
            self.settling -= 1
        else:
            self.runs.pop(run.assigned.id, None)
            self.claiming.discard(run.assigned.id)
        self._on_ended(run, error)


# After a run that the worker could not begin, such as one that can't be written down, the next poll waits this long.
UNCLAIMED_PAUSE_SECONDS = 2.0
# The time to exit after the drain (the time that runs get): for SIGTERM, SIGKILL, and sending each outcome once.
LEAVE_SECONDS = 4.5
# Each of these signals ends the worker. SIGHUP comes when the terminal that started the worker is closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# The main thread never waits longer than this, because on some platforms a signal does not wake a waiting thread.
LONGEST_STEP_SECONDS = 1.0
# Sessions whose time is over are removed this often.
TIDY_SECONDS = 60.0
# With this signal the worker takes no new runs, and ends when those in hand have ended, however long that takes.
FINISH_SIGNAL = signal.SIGUSR1
NEVER = float("inf")


@dataclass(frozen=True)
class Settings:
    """The options of the main loop. It executes at most `max_concurrency` runs at a time (None: as the API says). After
    a signal runs get `drain_seconds` to finish. With `once` it takes only runs that are due now, with `drain` none.
    `pass_env` names environment variables for programs.
    """

    max_concurrency: int | None
    drain_seconds: float
    once: bool
    drain: bool = False
    pass_env: tuple[str, ...] = ()
    # The directory for the files of live run events. None if nobody asked for such files.
    events: Path | None = None
    # Called after each poll with how claude is paid for, as the API says; None if it says nothing.
    on_auth_mode: Callable[[str | None], None] = lambda _: None
    # Returns the HMAC that names claude's account, which the polls tell the API; None if it is not known.
    account_id: Callable[[], str | None] = lambda: None
    # Returns what is wrong with this machine. The argument says by how many seconds the API's clock is ahead, or None.
    problems: Callable[[float | None], list[dict[str, str]]] = lambda _: []


class Fatal(Exception):  # noqa: N818 - the end, with a sentence for the operator
    """The worker can't continue, because of the error `cause`."""

    def __init__(self, cause: ApiError) -> None:
        super().__init__(str(cause))
        self.cause = cause
        # A 404 means that the API does not know this worker any more, for example because somebody deregistered it.
        not_found = isinstance(cause, Refused) and cause.status == HTTPStatus.NOT_FOUND
        refused = isinstance(cause, TokenRefused) and cause.arrived
        self.token_is_dead = refused or not_found


class Loop:
    """Runs one worker. Call `run()` once, in the main thread; other threads only send it what it is to do next."""

    def __init__(self, api: Api, journal: Journal, executor: Executor, settings: Settings) -> None:
        self._api = api
        self._journal = journal
        self._settings = settings
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._draining = threading.Event()
        self._leaving = threading.Event()
        self._surroundings = Surroundings(
            api,
            journal,
            executor,
            settings.pass_env,
            settings.events,
            leaving=self._leaving.wait,
            parking=lambda run_id: self._inbox.put(lambda: self._in_hand.claiming.add(run_id)),
            claimed=lambda run_id: self._inbox.put(lambda: self._in_hand.claiming.discard(run_id)),
        )
        self._in_hand = InHand(self._surroundings, self._inbox.put, self._on_ended)
        self._poller = Poller(
            api, journal, settings, executor.features, self._inbox.put, self._on_polled
        )
        # Runs that were granted anew, after a person's decision, while the thread of their earlier claim has not ended.
        self._decided: dict[str, Granted] = {}
        # True once no further run is to be taken, because none is due; only with `once`.
        self._all_taken = False
        # Set when a signal has come: when the worker stops unfinished runs, and when it exits in any case.
        self._stop_at = self._leave_at = NEVER
        self._tidy_at = 0.0
        self._failure: ApiError | None = None

    def run(self) -> None:
        """Poll and execute runs until a signal comes, or with `once` until no run is due. Raises Fatal."""
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in (*STOP_SIGNALS, FINISH_SIGNAL)
            # `nohup` starts a program with SIGHUP ignored, so that it survives the closing of its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {FINISH_SIGNAL})
        try:
            self._in_hand.settle_the_past()
            if self._settings.drain:
                self._finish("--drain")
            while not self._finished():
                self._step()
            if time.monotonic() < self._leave_at and self._failure is None:
                self._poller.sign_off()
        finally:
            self._leaving.set()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self._failure is not None:
            raise Fatal(self._failure)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A signal may interrupt another put() of the main thread. A queue with a lock would wait for ever then.
        react = self._finish if number == FINISH_SIGNAL else self._on_stop_signal
        self._inbox.put(lambda: react(signal.Signals(number).name))

    def _finished(self) -> bool:
        busy = bool(self._in_hand.runs) or self._in_hand.settling > 0
        if self._draining.is_set():
            # The API may be granting a run at this moment. The worker then has to hand it back, so it is still busy.
            busy = busy or (self._poller.under_way and self._failure is None)
            return not busy or time.monotonic() >= self._leave_at
        return self._all_taken and not busy

    def _step(self) -> None:
        now = time.monotonic()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            self._see_to_sessions(None, [])
        if now >= self._stop_at:
            self._stop_all()
        next_at = min(self._stop_at, self._leave_at)
        if self._may_poll():
            if now >= self._poller.due_at:
                self._poller.begin()
            else:
                next_at = min(next_at, self._poller.due_at)
        try:
            timeout = min(max(next_at - now, 0.0), LONGEST_STEP_SECONDS)
            self._inbox.get(timeout=timeout)()
        except queue.Empty:
            pass

    def _may_poll(self) -> bool:
        if self._poller.under_way or self._in_hand.claiming or self._draining.is_set():
            return False
        if self._all_taken or (self._settings.once and self._in_hand.settling):
            return False
        return self._has_room()

    def _has_room(self) -> bool:
        limit = self._settings.max_concurrency
        return limit is None or len(self._in_hand.runs) < limit

    # --- Taking runs and ending them --------------------------------------------------------------

    def _on_polled(self, result: Polled | ApiError) -> None:
        if isinstance(result, Polled):
            self._take(result)
        elif not self._poller.tries_again(result):
            self._fail(result)

    def _take(self, polled: Polled) -> None:
        self._poller.answered(polled)
        self._settings.on_auth_mode(self._api.auth_mode)
        if self._api.limited_seconds is not None or self._api.ended_runs:
            self._see_to_sessions(self._api.limited_seconds, self._api.ended_runs)
        if polled.granted is not None:
            self._take_granted(polled.granted)
        self._all_taken = self._settings.once and (polled.granted is None or not self._has_room())

    def _see_to_sessions(self, limited_seconds: float | None, ended_runs: list[str]) -> None:
        """Keep sessions while a usage limit lasts, and remove those of ended runs and those whose time is over. A
        thread does this, as it takes long if a run has left very many files.
        """
        sessions, executor = self._journal.sessions, self._surroundings.executor

        def work() -> None:
            if limited_seconds is not None:
                with logged("it can't be written down that sessions are kept"):
                    sessions.keep_while_limited(limited_seconds)
            for run_id in ended_runs:
                # If a person has decided since the poll began, the run uses its session again, which this leaves alone.
                sessions.learn_end(run_id, None, executor)
            sessions.tidy(executor, time.time())

        # If there is no room for a thread, the next poll's answer or the next minute does the same.
        with contextlib.suppress(RuntimeError):
            start_thread("sessions", work)

    def _take_granted(self, granted: Granted) -> None:
        """Begin a run that the API has claimed for this worker, or hand it back."""
        run, in_hand = granted.run, self._in_hand
        if run is None:
            log.warning("a run that was granted can't be read")
            if granted.run_id is None:
                self._drop_claim_id()
            else:
                in_hand.hand_back(granted.run_id, journal.UNREADABLE)
            self._poller.pause(UNCLAIMED_PAUSE_SECONDS)
        elif run.id in in_hand.runs and run.is_decided:
            # The thread that has reported that the run waits is about to end.
            in_hand.claiming.add(run.id)
            self._decided[run.id] = granted
        elif run.id in in_hand.runs or self._journal.has_outcome(run.id):
            # The worker has this run already, but could not drop its claimId then.
            self._drop_claim_id()
            self._poller.pause(UNCLAIMED_PAUSE_SECONDS)
        elif self._draining.is_set():
            log.info("run %s came too late; it is handed back", run.id)
            outcome = replace(journal.NOT_BEGUN, session_id=run.resume_session_id)
            in_hand.hand_back(run.id, outcome)
        else:
            in_hand.launch(Run(run, granted.claim_id, self._surroundings, granted.state))

    def _drop_claim_id(self) -> None:
        with logged("a claimId can't be removed from disk"):
            self._journal.drop_next_claim_id()

    def _on_ended(self, run: Run | None, error: ApiError | None) -> None:
        """Go on after a run's thread has ended; `run` is None for a thread that only reported."""
        if run is not None:
            if not run.claimed:
                self._poller.pause(UNCLAIMED_PAUSE_SECONDS)
            decided = self._decided.pop(run.assigned.id, None)
            if decided is not None:
                self._take_granted(decided)
        if error is not None:
            self._fail(error)

    # --- Stopping the worker ----------------------------------------------------------------------

    def _finish(self, name: str) -> None:
        """Take no new runs from now on, and let those in hand take their time."""
        if self._draining.is_set():
            return
        self._draining.set()
        count = len(self._in_hand.runs)
        log.info("%s: takes nothing new, and ends after its runs in hand: %d", name, count)
        with logged("it can't be written down that this worker drains"):
            self._journal.tell(draining=True)
        self._poller.end_wait()

    def _on_stop_signal(self, name: str) -> None:
        if self._leave_at != NEVER:
            log.warning("%s again: stopping at once", name)
            self._stop_at = time.monotonic()
        elif self._in_hand.runs:
            log.info("%s: up to %g s for what is in hand", name, self._settings.drain_seconds)
            self._drain(self._settings.drain_seconds)
        else:
            log.info("%s: stopping", name)
            self._drain(0.0)

    def _drain(self, seconds: float) -> None:
        self._draining.set()
        self._stop_at = time.monotonic() + seconds
        self._leave_at = self._stop_at + LEAVE_SECONDS
        self._poller.end_wait()

    def _stop_all(self) -> None:
        self._stop_at = NEVER
        self._leave_at = min(self._leave_at, time.monotonic() + LEAVE_SECONDS)
        for run in self._in_hand.runs.values():
            run.stop.request(StopReason.SHUTDOWN)

    def _fail(self, error: ApiError) -> None:
        """Stop all runs because the worker can't continue. `run()` then raises Fatal."""
        if self._failure is None:
            self._failure = error
            self._draining.set()
            # From now on each outcome is sent only once more. What is not accepted stays on disk for the next start.
            self._leaving.set()
            self._stop_all()


# How long the API may hold a poll until a run is due. Many proxies cut a request after 30 s without a byte.
WAIT_SECONDS = 25.0
# An API that is shutting down holds no poll. If an empty answer comes sooner than this, the rest is waited for.
SHORTEST_EMPTY_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Granted:
    """A run that the API has claimed by `claim_id` and started. `run` is None if the answer, `state`, can't be read."""

    claim_id: str
    # It holds the run's secrets, so the repr leaves it out.
    state: dict[str, Any] = field(repr=False)
    run: AssignedRun | None

    @property
    def run_id(self) -> str | None:
        try:
            return str(UUID(self.state["id"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True)
class Polled:
    """A poll that the API answered: the run that it granted, if any, and how many seconds the answer took."""

    granted: Granted | None
    seconds: float


@dataclass
class Poller:
    """Sends one poll at a time in another thread, and lets the main thread call `_on_polled` with its result or
    exception. The main thread then calls `answered()` or `tries_again()`, which decide when the next poll is due.
    """

    _api: Api
    _journal: Journal
    _settings: Settings
    _features: Sequence[str]
    _deliver: Callable[[Callable[[], None]], None]
    _on_polled: Callable[[Polled | ApiError], None]
    _outage: Outage = field(default_factory=Outage)
    _clock_warned: bool = False
    # The problems that the API knows; None before the first answer.
    _told: list[dict[str, str]] | None = None
    # True while the API may grant a run to a poll.
    under_way: bool = False
    # True after the API has answered the first poll.
    connected: bool = False
    # When the next poll is due, as a time of the monotonic clock.
    due_at: float = 0.0

    def begin(self) -> None:
        """Start a poll. The first is answered at once, which shows whether URL and token work; with `once`, all are."""
        wait = WAIT_SECONDS if self.connected and not self._settings.once else 0.0
        self.under_way = True

        def poll() -> None:
            result = self._poll(wait)
            self._deliver(lambda: self._on_polled(result))

        try:
            start_thread("poll", poll)
        except RuntimeError:
            failed = Unavailable("this machine has no room for another thread")
            self._deliver(lambda: self._on_polled(failed))

    def _poll(self, wait: float) -> Polled | ApiError:
        began = time.monotonic()
        try:
            claim_id = self._journal.next_claim_id()
            waiting = self._journal.sessions.waiting() if self._features else []
            account_id = self._settings.account_id()
            found = self._settings.problems(self._api.clock_offset)
            news = None if found == self._told else found
            state = self._api.claim_next(claim_id, wait, account_id, self._features, waiting, news)
            self._told = found
            granted = None if state is None else Granted(claim_id, state, AssignedRun.parse(state))
            return Polled(granted, time.monotonic() - began)
        except OSError as error:
            # A run that can't be written to disk would only be taken away from other workers.
            return Unavailable(f"the worker's files can't be written: {error.strerror}")
        except ApiError as error:
            return error
        except Exception as error:
            log.exception("the poll failed")
            return Unavailable(f"the poll failed: {type(error).__name__}")

    def end_wait(self) -> None:
        """Let the API answer the poll that waits there. If that fails, the poll ends by itself within a minute."""

        def end() -> None:
            with contextlib.suppress(ApiError):
                self._api.end_wait(self._features)

        if self.under_way:
            with contextlib.suppress(RuntimeError):
                start_thread("end of the wait", end)

    def sign_off(self) -> None:
        """Tell the API that this process ends, if it has polled. It ends soon also if the API does not answer."""
        if not self.connected:
            return

        def tell() -> None:
            with contextlib.suppress(ApiError):
                self._api.sign_off()

        with contextlib.suppress(RuntimeError):
            start_thread("sign-off", tell).join(SIGN_OFF_SECONDS)

    def answered(self, polled: Polled) -> None:
        self.under_way = False
        self._outage.answered()
        complaint = clock_complaint(self._api.clock_offset)
        if complaint and not self._clock_warned:
            self._clock_warned = True
            log.warning("%s; set it right", complaint)
        self.due_at = time.monotonic()
        if not self.connected:
            self.connected = True
            log.info("connected to %s", self._api.url)
        elif polled.granted is None:
            self.due_at += max(0.0, jittered(SHORTEST_EMPTY_POLL_SECONDS) - polled.seconds)

    def tries_again(self, error: ApiError) -> bool:
        """Note that a poll failed. Return False if a further attempt would fail too."""
        self.under_way = False
        # If polls were answered before, an answer of something else, such as a proxy's error page, is a passing fault.
        if isinstance(error, Unavailable) or (self.connected and isinstance(error, NotOurApi)):
            self.due_at = time.monotonic() + self._outage.failed(error)
            return True
        return False

    def pause(self, seconds: float) -> None:
        """Send the next poll no sooner than about `seconds` from now."""
        self.due_at = max(self.due_at, time.monotonic() + jittered(seconds))
