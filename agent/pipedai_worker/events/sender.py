"""Sends the events of one run's file to the API, in order, and removes the file when the API has them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipedai_worker.api.answers import Refused, TokenRefused
from pipedai_worker.api.client import Api
from pipedai_worker.api.patience import GaveUp, until_answered
from pipedai_worker.disk.journal import KEPT
from pipedai_worker.events.kinds import STATUS
from pipedai_worker.events.spool import SpoolReader, is_full, line_of
from pipedai_worker.logs import get_logger
from pipedai_worker.reporting.outcome import SUCCEEDED, WAITING
from pipedai_worker.running.stopping import run_in_background
from pipedai_worker.values import whole

log = get_logger(__name__)

# The API takes the events of a run until this long after its end.
LATEST_SECONDS = 24 * 3600.0
# After a call that was not full, the events of this time are gathered for the next one. A call costs the API about as
# much with forty events as with one, so the first event is sent at once, and those that follow once a second.
GATHER_SECONDS = 1.0
# If a run told more events than this within GATHER_SECONDS, no person can read them as they come, as with the output of
# a build. Its events are then gathered for twice the time.
MANY_EVENTS = 10
# The API answers so if earlier events are missing, and if the run's trigger asks for none, at least not now.
EVENT_GAP, EVENTS_OFF = "event_gap", "events_off"
# If the API asks for other events than it got more often than this in a row, the worker sends it no more.
MOST_GAPS = 3

# A run's thread waits so long for the run's last events to arrive: before the report, so that those who watch the run
# see them, or after it, so that a failure's events are soon there. If the API is away it does not wait.
FLUSH_SECONDS = 2.0
_LOOK_SECONDS = 0.02

Wait = Callable[[float], bool]


def seconds_to_gather(lines: list[bytes]) -> float:
    """Return for how long the next events are gathered after a call with these."""
    if is_full(lines):
        return 0.0
    return GATHER_SECONDS if len(lines) <= MANY_EVENTS else 2 * GATHER_SECONDS


class _Dropped(Exception):  # noqa: N818 - an end, not an error
    """The API takes no more events of this run."""


class Sender:
    """Sends what a run's file has and what is added to it, in a thread of its own from `begin()` or `end()` on.

    `wait` sleeps for so many seconds, and returns True once the worker has to exit. `clock` returns seconds.
    """

    def __init__(
        self,
        api: Api,
        run_id: str,
        path: Path,
        wait: Wait,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._run_id = run_id
        self._path = path
        self._wait = wait
        self._clock = clock
        self._news = threading.Event()
        self._ended = threading.Event()
        self._ended_at: float | None = None
        # False while the API does not answer.
        self._answered = True
        self._gaps = 0
        self._begun = self._over = False
        # True once the API has said that it takes no more events of this run.
        self.dropped = False
        # True if the run waits for a person. Its file stays then, because the run's later events follow in it.
        self.waits = False
        # Set once nothing more is sent: everything has been, the API takes no more, or the worker exits.
        self.done = threading.Event()

    def added(self) -> None:
        self._news.set()

    def finish(self) -> None:
        self._ended_at = self._clock()
        self._ended.set()
        self._news.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def begin(self) -> None:
        self._begun = True
        self.done.clear()
        run_in_background(f"events {self._run_id}", self.run)

    def flush(self) -> None:
        """After `finish()`, give the last events a moment to arrive, if they are being sent."""
        give_up_at = time.monotonic() + FLUSH_SECONDS
        while self._begun and self._answered and time.monotonic() < give_up_at:
            if self.done.wait(_LOOK_SECONDS):
                return

    def end(self, status: str | None, *, hasty: bool = False) -> None:
        """After `finish()`, send the file if that has not begun, or remove it if it is kept and the run has succeeded.

        `status` is that of the run, as the API has said; None if it is not known, so that the API decides. With `hasty`
        the last events get no moment to arrive.
        """
        self._over = True
        if self.waits and status in {None, WAITING}:
            return
        if self._begun:
            if self.waits:
                self._remove()
            return
        if status == SUCCEEDED and self._path.name.endswith(KEPT):
            self._remove()
            return
        self.begin()
        if not hasty:
            self.flush()

    def run(self) -> None:
        """Send everything, until the run has ended or the worker exits. What is left then stays on disk."""
        try:
            with contextlib.closing(SpoolReader(self._path)) as reader:
                self._send_all(reader)
        except (_Dropped, Refused) as refused:
            if self._begun and not self._over and getattr(refused, "code", None) == EVENTS_OFF:
                # The trigger's `recordEvents` was changed. The API may take the events after the run's end.
                self._begun = False
                return
            log.info("run %s: the API takes no more of its events: %s", self._run_id, refused)
            self.dropped = True
            self._remove()
        except (GaveUp, TokenRefused) as error:
            if self._is_too_late():
                self._remove()
            log.info("run %s: its events could not be sent: %s", self._run_id, error)
        except OSError as error:
            log.warning("run %s: its events can't be read: %s", self._run_id, error.strerror)
        except Exception:
            log.exception("run %s: its events can't be sent", self._run_id)
        else:
            if not self.waits:
                self._remove()
        finally:
            self.done.set()

    def _send_all(self, reader: SpoolReader) -> None:
        while True:
            self._news.clear()
            ended = self.ended
            lines = reader.lines()
            if lines:
                self._send(reader, lines)
            elif ended:
                return
            else:
                self._news.wait()
                continue
            self._ended.wait(seconds_to_gather(lines))
            if self._wait(0):
                raise GaveUp("the worker is stopping")

    def _send(self, reader: SpoolReader, lines: list[bytes]) -> None:
        first = reader.seq
        try:
            answer = until_answered(lambda: self._post(first, lines), self._wait_to_try_again)
        except Refused as refused:
            self._answered = True
            expected = whole(refused.body.get("nextSeq"))
            self._gaps += 1
            if refused.code != EVENT_GAP or expected is None or self._gaps > MOST_GAPS:
                raise
            reader.go_to(expected)
            return
        self._answered, self._gaps = True, 0
        expected = whole(answer.get("nextSeq"))
        expected = first + len(lines) if expected is None else expected
        if expected <= first:
            raise _Dropped(f"it stays at event {expected}")
        reader.go_to(expected)

    def _post(self, first: int, lines: list[bytes]) -> dict[str, Any]:
        body = b'{"events":[' + b",".join(lines) + b"]}"
        try:
            return self._api.tell_events(self._run_id, body)
        except Refused as refused:
            if not refused.is_unfit:
                raise
        if len(lines) > 1:
            return self._post(first, lines[: len(lines) // 2])
        # The API can't store this event. It gets another one in its place, because it takes no event after a gap.
        instead = line_of(first, STATUS, None, {"subtype": "event_refused"})
        return self._api.tell_events(self._run_id, b'{"events":[' + instead + b"]}")

    def _wait_to_try_again(self, seconds: float) -> bool:
        self._answered = False
        return self._wait(seconds) or self._is_too_late()

    def _is_too_late(self) -> bool:
        return self._ended_at is not None and self._clock() - self._ended_at > LATEST_SECONDS

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()


def send_left(api: Api, files: dict[str, Path], wait: Wait) -> None:
    """Send what earlier processes of this worker have left of these runs, one after the other."""
    for run_id, path in files.items():
        sender = Sender(api, run_id, path, wait)
        sender.finish()
        sender.run()
        if wait(0):
            return
