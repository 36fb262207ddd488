"""What lanes that wait share: asking an endpoint for its answer, and seeing whether the client is still there."""

import asyncio
import random
from collections.abc import Callable
from typing import Self

from pipedai.server.asgi_types import App, Message, Receive, Scope
from pipedai.server.listen import Listener
from pipedai.server.refusal import ClientGone
from pipedai.server.request_body import Replay

# How often a waiter looks while it does not hear the database's notifications.
UNHEALTHY_RECHECK_SECONDS = 2.0


class WaitingLane:
    """A lane whose requests wait, and ask `endpoint` again. At most `turns` askings are under way at once: however many
    waiters wake together, the rest of the endpoint's threads are left to other requests.
    """

    def __init__(self, endpoint: App, listener: Listener, *, turns: int) -> None:
        self._endpoint = endpoint
        self._listener = listener
        self._turns = asyncio.Semaphore(turns)
        self._stopping = False

    def stop(self) -> None:
        """Answer all that wait now, and let no other wait: the server is going down."""
        self._stopping = True
        self._listener.wake_all()

    def _patience(self, trusted: float) -> float:
        """For how long to trust silence: `trusted` seconds, if notifications are heard."""
        patience = trusted if self._listener.healthy else UNHEALTHY_RECHECK_SECONDS
        # Jitter keeps those that woke together from doing so again.
        return patience * random.uniform(0.8, 1)  # noqa: S311


async def ask(endpoint: App, scope: Scope, body: bytes) -> list[Message]:
    """The endpoint's whole answer, as it is now."""
    answer: list[Message] = []

    async def keep(message: Message) -> None:
        answer.append(message)

    await endpoint(scope, Replay(body, _nothing_more), keep)
    return answer


def status_of(answer: list[Message]) -> int:
    """The status of a whole answer."""
    return int(next(m["status"] for m in answer if m["type"] == "http.response.start"))


class Presence:
    """Watches whether the client is still there; calls `on_leaving` when it goes."""

    def __init__(self, receive: Receive, on_leaving: Callable[[], None]) -> None:
        self._receive = receive
        self._on_leaving = on_leaving

    def __enter__(self) -> Self:
        self._watch = asyncio.ensure_future(self._receive())
        self._watch.add_done_callback(lambda _: self._on_leaving())
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.cancel()

    def check(self) -> None:
        """Raise ClientGone if the client has left."""
        if self._watch.done():
            raise ClientGone


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
