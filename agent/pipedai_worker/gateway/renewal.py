"""Has the headers of a run's MCP server renewed by the API before they expire, or when the server refuses them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pipedai_worker.api.answers import ApiError
from pipedai_worker.api.patience import Backoff
from pipedai_worker.gateway import limits
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.logs import get_logger
from pipedai_worker.running.stopping import in_background

log = get_logger(__name__)


@dataclass(frozen=True)
class Credentials:
    """The headers that show an MCP server who sends a request."""

    headers: Mapping[str, str] = field(repr=False)
    # When they expire, by this machine's monotonic clock; None if they do not.
    expire_at: float | None = None


# Returns the present credentials. It is told whether the server has refused those from before. It is called in a thread
# of its own, and may raise any exception.
Ask = Callable[[bool], Credentials]


class Renewal:
    """Asks for the credentials of one gateway, in whose event loop it lives. The API takes one request in 5 s."""

    def __init__(self, given: Credentials, ask: Ask, use: Callable[[Credentials], None]) -> None:
        """`use` gets each answer of `ask`, and raises ServerFailed for headers that can't be sent."""
        self._expire_at = given.expire_at
        self._ask = ask
        self._use = use
        self._asking: asyncio.Future[Credentials] | None = None
        self._answered_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff()

    def open(self) -> None:
        self._plan(0.0)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_expected(self) -> bool:
        return self._expire_at is not None

    async def ask(self) -> None:
        """After a refusal, wait for the present credentials to be used, but not for long, and not if they came a moment
        ago.
        """
        last = self._answered_at
        came_now = last is not None and time.monotonic() - last < limits.RENEWAL_PAUSE
        if self._asking is not None or not came_now:
            await asyncio.wait(
                [self._asking or self._begin(refused=True)], timeout=limits.RENEWAL_SECONDS
            )

    def _begin(self, *, refused: bool = False) -> asyncio.Future[Credentials]:
        self.close()
        self._asking = asking = in_background("credentials", partial(self._ask, refused))
        asking.add_done_callback(self._answered)
        return asking

    def _answered(self, asking: asyncio.Future[Credentials]) -> None:
        self._asking = None
        self._answered_at = time.monotonic()
        pause = limits.RENEWAL_PAUSE
        error = asking.exception()
        if error is None:
            try:
                self._use(asking.result())
            except ServerFailed as failed:
                error = failed
        if error is None:
            self._expire_at = asking.result().expire_at
            self._backoff.reset()
        else:
            if not self._backoff.attempts:
                # The text of another exception may quote a header.
                told = isinstance(error, (ApiError, ServerFailed))
                what = str(error) if told else type(error).__name__
                log.warning("the MCP server's headers can't be renewed yet: %s", what)
            pause = max(pause, self._backoff.next_delay(getattr(error, "retry_after", None)))
        self._plan(pause)

    def _plan(self, pause: float) -> None:
        """Ask again shortly before the credentials expire, but after `pause` seconds at the earliest."""
        if self._expire_at is None:
            return
        left = self._expire_at - time.monotonic()
        delay = max(pause, left - min(limits.RENEWED_BEFORE, left / 2))
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)
