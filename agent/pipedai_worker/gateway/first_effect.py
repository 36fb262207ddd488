"""Holds back a run's first tool call that may change something until the API knows of the call (SPEC §18)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pipedai_worker.background import run_in_background
from pipedai_worker.logs import get_logger

log = get_logger(__name__)


class NotAllowed(Exception):  # noqa: N818 - carries the sentence for the client
    """A call must not be sent to the MCP server. The exception's text tells the client why."""


class FirstEffect:
    """Asks once whether tool calls that may change something may be sent; each such call waits for the answer.

    `ask` returns if they may be sent, and raises an exception if not. After an exception, the next call asks again.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._asked: asyncio.Future[None] | None = None

    async def allowed(self) -> None:
        """Return when tool calls that may change something may be sent. Raises NotAllowed if they must not be sent."""
        if self._asked is None or (self._asked.done() and self._asked.exception() is not None):
            self._asked = _in_thread(self._ask)
        try:
            await asyncio.shield(self._asked)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.info("a call was not sent: %s", type(error).__name__)
            raise NotAllowed("The run is being stopped, so this call was not sent.") from None


def _in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Run `work` in a thread of its own. The gateway does not wait for this thread when it ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    # If the gateway ends first, nobody reads the future's exception, and asyncio would complain about that. Reading it
    # here prevents the complaint.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def run() -> None:
        failed = None
        try:
            work()
        except Exception as error:
            failed = error
        # The gateway's event loop may have been closed while `work` ran.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, failed)

    run_in_background("gateway first effect", run)
    return future
