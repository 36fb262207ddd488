"""Asks for due runs, one poll at a time, and decides when to ask again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipedai_worker import clock
from pipedai_worker.answers import ApiError, NotOurApi, Unavailable
from pipedai_worker.api import Api
from pipedai_worker.assigned import AssignedRun
from pipedai_worker.background import run_in_background
from pipedai_worker.backoff import Backoff, jittered
from pipedai_worker.logs import get_logger
from pipedai_worker.patience import Outage

log = get_logger(__name__)

# Under the 30 s after which common routers give up on a silent request.
WAIT_SECONDS = 25.0
# A poll that came back empty sooner than this was not held: the next one waits for the rest of it.
SHORTEST_EMPTY_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Polled:
    """An answered poll: the runs it brought, and how long it took."""

    runs: list[AssignedRun]
    seconds: float


@dataclass(frozen=True)
class PollFailed:
    """A poll without an answer."""

    error: ApiError


class Poller:
    """Delivers each poll's end through `deliver`, called in another thread. Hand it back in here."""

    def __init__(
        self, api: Api, deliver: Callable[[Polled | PollFailed], None], *, hold: bool
    ) -> None:
        self._api = api
        self._deliver = deliver
        # Whether polls may be held until a run is due.
        self._hold = hold
        self._backoff = Backoff()
        self._outage = Outage()
        self._clock_warned = False
        self.under_way = False
        # Whether a poll was ever answered.
        self.connected = False
        # When to ask next, on the monotonic clock.
        self.due_at = 0.0

    def begin(self) -> None:
        """Start a poll. The first is not held: it shows at once whether URL and token are good."""
        wait = WAIT_SECONDS if self._hold and self.connected else 0.0
        self.under_way = True
        run_in_background("poll", lambda: self._deliver(self._poll(wait)))

    def _poll(self, wait: float) -> Polled | PollFailed:
        began = time.monotonic()
        try:
            return Polled(self._api.poll(wait), time.monotonic() - began)
        except ApiError as error:
            return PollFailed(error)
        except Exception as error:
            log.exception("the poll failed")
            return PollFailed(Unavailable(f"the poll failed: {type(error).__name__}"))

    def answered(self, polled: Polled, *, news: bool) -> None:
        """A poll came back; `news` is whether it brought a run that was not known."""
        self.under_way = False
        self._backoff.reset()
        self._outage.answered()
        self._check_clock()
        self.due_at = time.monotonic()
        if not self.connected:
            self.connected = True
            log.info("connected to %s", self._api.url)
        elif not news:
            self.due_at += max(0.0, jittered(SHORTEST_EMPTY_POLL_SECONDS) - polled.seconds)

    def failed(self, failure: PollFailed) -> None:
        """A poll failed. Raises its error if asking again can't help."""
        self.under_way = False
        error = failure.error
        # Once the API has answered, another page in its place passes, as a proxy's would.
        if isinstance(error, Unavailable) or (self.connected and isinstance(error, NotOurApi)):
            self._outage.failed(error)
            self.due_at = time.monotonic() + self._backoff.next_delay(error.retry_after)
            return
        raise error

    def pause(self, seconds: float) -> None:
        """Do not ask again before so much time has passed."""
        self.due_at = max(self.due_at, time.monotonic() + jittered(seconds))

    def _check_clock(self) -> None:
        complaint = clock.complaint(self._api.clock_offset)
        if complaint and not self._clock_warned:
            self._clock_warned = True
            log.warning("%s; set it right", complaint)
