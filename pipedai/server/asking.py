"""What lanes that wait share: asking an endpoint for its answer, and seeing whether the client is still there."""

import asyncio
from collections.abc import Callable
from typing import Self

from pipedai.server.asgi_types import App, Message, Receive, Scope
from pipedai.server.refusal import ClientGone
from pipedai.server.request_body import replay


async def ask(endpoint: App, scope: Scope, body: bytes) -> list[Message]:
    """The endpoint's whole answer, as it is now."""
    answer: list[Message] = []

    async def keep(message: Message) -> None:
        answer.append(message)

    await endpoint(scope, replay(body, _nothing_more), keep)
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
