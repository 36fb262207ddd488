"""Tells the API of a run: by heartbeats, which renew its lease, by events in order, and by the report of its end."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pipedai_worker.api import (
    Api,
    Backoff,
    GaveUp,
    Refused,
    TokenRefused,
    Unanswered,
    until_answered,
)
from pipedai_worker.disk import spool
from pipedai_worker.disk.durable import logged
from pipedai_worker.disk.journal import KEPT, Journal
from pipedai_worker.disk.spool import (
    MOST_BYTES_OF_ALL,
    NOT_WRITTEN,
    STATUS,
    STREAMS,
    RunEvent,
    SpoolReader,
    SpoolWriter,
    is_full,
    line_of,
    make_room,
)
from pipedai_worker.executors.base import Executor
from pipedai_worker.redact import RedactingTexts, Redactor
from pipedai_worker.running.assigned import ALWAYS
from pipedai_worker.running.outcome import SUCCEEDED, WAITING, bare, size_of, storable
from pipedai_worker.running.stopping import (
    StopReason,
    StopRequest,
    run_in_background,
    start_thread,
)
from pipedai_worker.values import is_deeper, shortened, whole, with_strings

log = logging.getLogger(__name__)

# Two heartbeats in a row may fail, and the third still comes before the lease ends.
BEATS_PER_LEASE = 3
# The pause between heartbeats stays within these bounds, because only an answer tells that a run was canceled.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 20.0
# A thread that waits for a heartbeat's answer checks this often whether the run has been stopped meanwhile.
LOOK_SECONDS = 0.2

Counts = dict[str, int]
# Sleeps for so many seconds, and returns True once the worker has to exit.
Wait = Callable[[float], bool]


class NotTold(Exception):  # noqa: N818 - a state of knowledge
    """The run ended or was stopped before the API had answered the heartbeat."""


@dataclass
class Heartbeat:
    """A context manager that sends heartbeats, with what `counts` returns and, once it is set, with `session_id`."""

    _api: Api
    _run_id: str
    _stop: StopRequest
    _counts: Callable[[], Counts | None] = lambda: None
    # Called with each answer that says that the run's events are to be sent as they come.
    _watched: Callable[[], None] = lambda: None
    session_id: str | None = None
    _interval: float = LONGEST_SECONDS
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _ended: bool = False
    # How often `tell()` was called, and how often it had been when the last answered heartbeat was sent.
    _asked: int = 0
    _answered: int = 0

    def __enter__(self) -> Heartbeat:
        run_in_background(f"heartbeat {self._run_id}", self._beat)
        return self

    def __exit__(self, *_: object) -> None:
        # The heartbeat's thread is not joined: it may be waiting for a slow answer, which no longer matters.
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def tell(self) -> None:
        """Wait until a heartbeat with the present counts, or later ones, has been answered. Raises NotTold."""
        with self._condition:
            self._asked += 1
            mine = self._asked
            self._condition.notify_all()
            while self._answered < mine:
                if self._ended or self._stop.reason is not None:
                    raise NotTold
                self._condition.wait(LOOK_SECONDS)
            if self._stop.reason is not None:
                raise NotTold

    def _beat(self) -> None:
        backoff = Backoff()
        delay = 0.0
        failed = False
        while self._wait(delay, in_any_case=failed):
            with self._condition:
                asked = self._asked
            try:
                answer = self._api.heartbeat(self._run_id, self._counts(), self.session_id)
            except TokenRefused:
                self._stop.request(StopReason.TOKEN_REFUSED)
                return
            except Refused:
                self._stop.request(StopReason.LOST)
                return
            except Exception as error:
                # The thread goes on. If it ended, the run would lose its lease, and `tell()` would wait for ever.
                failed = True
                if not isinstance(error, Unanswered):
                    log.exception("run %s: the heartbeat failed", self._run_id)
                # This pause is short, because after an outage the API gives the run up without a heartbeat in a minute.
                delay = backoff.next_delay(getattr(error, "retry_after", None))
                delay = min(delay, self._interval / 2)
            else:
                backoff.reset()
                failed = False
                left = self._api.seconds_until(answer.get("leaseExpiresAt"))
                if left is not None:
                    beat = max(left / BEATS_PER_LEASE, SHORTEST_SECONDS)
                    self._interval = min(beat, LONGEST_SECONDS)
                delay = self._interval
                if answer.get("cancelRequested"):
                    self._stop.request(StopReason.CANCELED)
                if answer.get("recordEvents") == ALWAYS:
                    self._watched()
                with self._condition:
                    self._answered = asked
                    self._condition.notify_all()

    def _wait(self, seconds: float, *, in_any_case: bool) -> bool:
        """Sleep, but only until `tell()` needs a heartbeat, unless `in_any_case`. Return False at the run's end."""
        until = time.monotonic() + seconds
        with self._condition:
            while not self._ended:
                left = until - time.monotonic()
                if left <= 0 or (self._asked > self._answered and not in_any_case):
                    return True
                self._condition.wait(left)
            return False


@dataclass(frozen=True)
class Surroundings:
    api: Api
    journal: Journal
    executor: Executor
    # Names of environment variables that the program gets beside the allow-listed ones.
    pass_env: tuple[str, ...]
    # The directory for live run events; None if nobody asked for them.
    events: Path | None
    leaving: Wait
    # Called with a run's id when the run is on disk, or can't be written there.
    claimed: Callable[[str], None]
    # Called with a run's id before the API is told that the run waits for a person. The worker takes no run meanwhile.
    parking: Callable[[str], None]


def report(around: Surroundings, run_id: str, body: dict[str, Any]) -> str | None:
    """Send the outcome of a run, and remove it from disk unless GaveUp or TokenRefused is raised. Return the status of
    the run; None if the API refuses the outcome. One that it can't store is sent without its details.
    """
    journal, status = around.journal, None
    try:
        answer = until_answered(lambda: around.api.complete(run_id, body), around.leaving)
    except Refused as refused:
        if refused.is_unfit and body != bare(body):
            # Without any report the API would take the run for lost.
            log.warning("run %s: the API can't take the whole outcome: %s", run_id, refused)
            return report(around, run_id, bare(body))
        log.warning("run %s: %s not accepted: %s", run_id, body.get("status"), refused)
        if refused.status == HTTPStatus.NOT_FOUND:
            journal.sessions.learn_end(run_id, None, around.executor)
    else:
        status = answer.get("status")
        log.info("run %s %s", run_id, body.get("status"))
        seconds, waits = around.api.seconds_until(answer.get("resumeUntil")), status == WAITING
        # If the API does not tell for how long, the session of a run that waits is kept as long as possible.
        if "resumeUntil" in answer and not (waits and seconds is None):
            journal.sessions.learn_end(run_id, seconds, around.executor, waits=waits)
    journal.drop_outcome(run_id)
    return status


# The API takes the events of a run until this long after its end.
LATEST_SECONDS = 24 * 3600.0
# After a call that was not full, the events of this time are gathered for the next one. A call costs the API about as
# much with forty events as with one, so the first event is sent at once, and those that follow once a second.
GATHER_SECONDS = 1.0
# If a run had more events than this within GATHER_SECONDS, no person can read them as they come, as with the output of
# a build. Its events are then gathered for twice the time.
MANY_EVENTS = 10
# The API's codes for missing earlier events, and for a trigger that asks for no events, at least not now.
EVENT_GAP, EVENTS_OFF = "event_gap", "events_off"
# If more answers in a row than this ask for other events than the worker sent, it sends no more.
MOST_GAPS = 3

# A run's thread waits so long for the run's last events to arrive: before the report, so that those who watch the run
# see them, or after it, so that a failure's events are soon there. If the API is away it does not wait.
FLUSH_SECONDS = 2.0
_LOOK_SECONDS = 0.02


def seconds_to_gather(lines: list[bytes]) -> float:
    """Return for how many seconds events are gathered after a call that sent these."""
    if is_full(lines):
        return 0.0
    return GATHER_SECONDS if len(lines) <= MANY_EVENTS else 2 * GATHER_SECONDS


class _Dropped(Exception):  # noqa: N818 - an end, not an error
    """The API takes no more events of this run."""


@dataclass
class Sender:
    """Sends a run's events from its file, which may still grow, in a thread of its own from `begin()` or `end()` on."""

    _api: Api
    _run_id: str
    _path: Path
    _wait: Wait
    _clock: Callable[[], float] = time.monotonic
    # Set when events have been added to the file.
    news: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _ended_at: float | None = None
    # False while the API does not answer.
    _answered: bool = True
    _gaps: int = 0
    _begun: bool = False
    _over: bool = False
    # Held while it is decided whether the file is sent, because heartbeats come in a thread of their own.
    _deciding: threading.Lock = field(default_factory=threading.Lock)
    # True once the API has said that it takes no more events of this run.
    dropped: bool = False
    # True if the run waits for a person. Its file stays then, because the run's later events follow in it.
    waits: bool = False
    # Set once nothing more is sent: everything has been, the API takes no more, or the worker exits.
    done: threading.Event = field(default_factory=threading.Event)

    def finish(self) -> None:
        self._ended_at = self._clock()
        with self._deciding:
            self._ended.set()
        self.news.set()

    def begin(self, start: Callable[..., object] = run_in_background) -> None:
        self._begun = True
        self.done.clear()
        try:
            start(f"events {self._run_id}", self.run)
        except RuntimeError:
            self._begun = False

    def watch(self) -> None:
        """Send the file's events from now on, even if they were to be kept until the run's end."""
        with self._deciding:
            if not (self._begun or self._ended.is_set() or self.dropped):
                # A heartbeat must not wait for room for a thread. The next one tries again.
                self.begin(start_thread)

    def flush(self) -> None:
        """After `finish()`, give the last events a moment to arrive, if they are being sent."""
        give_up_at = time.monotonic() + FLUSH_SECONDS
        while self._begun and self._answered and time.monotonic() < give_up_at:
            if self.done.wait(_LOOK_SECONDS):
                return

    def end(self, status: str | None, *, hasty: bool = False) -> None:
        """After `finish()`, send the file if that has not begun. If it is kept for a failure and `status` is a success,
        remove it instead. `hasty` does not wait for the last events to arrive.
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
            self.news.clear()
            ended = self._ended.is_set()
            lines = reader.lines()
            if lines:
                self._send(reader, lines)
            elif ended:
                return
            else:
                self.news.wait()
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


# The bounds of one event, in characters: its text, one string of its data, and the JSON of its data.
LONGEST_TEXT, LONGEST_STRING, LONGEST_DATA = 8_000, 2_000, 16_000
# The API refuses JSON that is nested deeper than 64, and an event's data stands three deep in a call.
DEEPEST_DATA = 50


class Recorder:
    """Records one run. Nothing that goes wrong here reaches the run: events are lost then, and the log says so."""

    def __init__(self, writer: SpoolWriter, sender: Sender, redactor: Redactor) -> None:
        self._writer = writer
        self.sender = sender
        self._redactor = redactor
        # A secret may begin in one text and end in the next text of the same type, so each type has its own redactor.
        self._texts: defaultdict[str, RedactingTexts] = defaultdict(
            lambda: RedactingTexts(redactor)
        )

    @classmethod
    def begin(
        cls,
        api: Api,
        run_id: str,
        path: Path,
        redactor: Redactor,
        wait: Wait,
        *,
        go_on: bool = False,
    ) -> Recorder | None:
        """Make the run's file, or `go_on` in it, and begin to send it unless it is kept; None if the disk fails."""
        with logged(f"run {run_id}: its events can't be recorded"):
            make_room(path.parent, most_bytes=MOST_BYTES_OF_ALL)
            recorder = cls(
                SpoolWriter(path, go_on=go_on), Sender(api, run_id, path, wait), redactor
            )
            if not path.name.endswith(KEPT):
                recorder.sender.begin()
            return recorder
        return None

    def take(self, kind: str, payload: Any) -> None:
        if not self._writer.open or self.sender.dropped:
            self._writer.close()
            return
        try:
            with logged(NOT_WRITTEN):
                for event in spool.read(kind, payload):
                    for text, data in self._redacted(event):
                        self._writer.add(event.type, text, data)
                self.sender.news.set()
                return
        except Exception:
            log.exception("an event can't be recorded; the run goes on without further events")
        self._writer.close()

    def finish(self, *, waits: bool = False) -> None:
        """Record nothing more. `waits` says that the run will go on, and its events after it."""
        self._writer.close()
        self.sender.waits = waits
        self.sender.finish()

    def _redacted(self, event: RunEvent) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
        """Yield the text and the data of each event to write: one, or several for a long piece of a stream."""
        if event.type in STREAMS:
            for text in event.texts:
                clean = self._texts[event.type].next(text)
                for start in range(0, len(clean), LONGEST_TEXT):
                    yield str(storable(clean[start : start + LONGEST_TEXT])), None
            return
        cleaned = [self._texts[event.type].next(text, LONGEST_TEXT + 1) for text in event.texts]
        text = str(storable("\n".join(cleaned)))
        data = self._data(event)
        if len(text) > LONGEST_TEXT:
            text = shortened(text, LONGEST_TEXT)
            data["textLength"] = sum(map(len, event.texts)) + len(event.texts) - 1
        yield text or None, data or None

    def _data(self, event: RunEvent) -> dict[str, Any]:
        texts = self._texts[f"{event.type} data"]

        def short(text: str) -> str:
            return shortened(texts.next(text, LONGEST_STRING + 1), LONGEST_STRING)

        for data in (event.data, {**_plain(event.data), "dataLeftOut": True}):
            with contextlib.suppress(RecursionError):
                clean = storable(with_strings(data, short, self._redactor.redact))
                size = size_of(clean)
                if size is not None and size <= LONGEST_DATA and not is_deeper(clean, DEEPEST_DATA):
                    return dict(self._redactor.redact_json(clean))
        return {"dataLeftOut": True}


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in data.items()
        if isinstance(value, str)
        or (not isinstance(value, (dict, list)) and size_of(value) is not None)
    }
