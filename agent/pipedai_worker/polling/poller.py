"""Asks the API for the next run, with one request (poll) at a time, and decides when to send the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pipedai_worker.api.answers import ApiError, Backoff, NotOurApi, Outage, Unavailable, jittered
from pipedai_worker.api.client import SIGN_OFF_SECONDS, Api, clock_complaint
from pipedai_worker.disk.journal import Journal
from pipedai_worker.logs import get_logger
from pipedai_worker.polling.assigned import AssignedRun
from pipedai_worker.running.stopping import run_in_background

log = get_logger(__name__)

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


class Poller:
    """Sends one poll at a time in another thread, and passes its result or exception to `deliver`. The main thread then
    calls `answered()` or `tries_again()`, which decide when the next poll is due.
    """

    def __init__(
        self,
        api: Api,
        deliver: Callable[[Polled | ApiError], None],
        *,
        hold: bool,
        journal: Journal,
        account_id: Callable[[], str | None] = lambda: None,
        features: Sequence[str] = (),
    ) -> None:
        self._api = api
        self._features = features
        # Returns the word for the account of claude, which each poll tells.
        self._account_id = account_id
        self._deliver = deliver
        # True if the API may hold a poll until a run is due; false to get every answer at once.
        self._hold = hold
        self._journal = journal
        self._backoff = Backoff()
        self._outage = Outage()
        self._clock_warned = False
        # True while the API may grant a run to a poll.
        self.under_way = False
        # True after the API has answered the first poll.
        self.connected = False
        # When the next poll is due, as a time of the monotonic clock.
        self.due_at = 0.0

    def begin(self) -> None:
        """Start a poll. The API answers the first one at once, which shows whether the URL and the token work."""
        wait = WAIT_SECONDS if self._hold and self.connected else 0.0
        self.under_way = True
        run_in_background("poll", lambda: self._deliver(self._poll(wait)))

    def _poll(self, wait: float) -> Polled | ApiError:
        began = time.monotonic()
        try:
            claim_id = self._journal.next_claim_id()
            waiting = self._journal.sessions.waiting() if self._features else []
            state = self._api.claim_next(
                claim_id, wait, self._account_id(), self._features, waiting
            )
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
        if self.under_way:
            run_in_background("end of the wait", self._end_wait)

    def _end_wait(self) -> None:
        try:
            self._api.end_wait(self._features)
        except ApiError as error:
            log.debug("the waiting poll can't be ended: %s", error)

    def sign_off(self) -> None:
        """Tell the API that this process ends, if it has polled. It ends soon also if the API does not answer."""
        if not self.connected:
            return

        def tell() -> None:
            try:
                self._api.sign_off()
            except ApiError as error:
                log.debug("the worker could not sign off: %s", error)

        run_in_background("sign-off", tell).join(SIGN_OFF_SECONDS)

    def answered(self, polled: Polled) -> None:
        self.under_way = False
        self._backoff.reset()
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
            self._outage.failed(error)
            self.due_at = time.monotonic() + self._backoff.next_delay(error.retry_after)
            return True
        return False

    def pause(self, seconds: float) -> None:
        """Send the next poll no sooner than about `seconds` from now."""
        self.due_at = max(self.due_at, time.monotonic() + jittered(seconds))
