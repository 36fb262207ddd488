"""Serves event streams without a thread or a database connection while there is no new event."""

import asyncio
import re
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import UUID

from pipedai.server.access_log import LOG
from pipedai.server.asgi_types import Message, Receive, Scope, Send
from pipedai.server.asking import WaitingLane, status_of
from pipedai.server.listen import StreamEar
from pipedai.server.refusal import ClientGone
from pipedai.server.ticket import STREAM, StreamTicket

# A stream asks for events again after this many seconds even without a notification. Asking takes time as well, so the
# stream's credential is checked again about every 15 s.
RECHECK_SECONDS = 12.0
# A reader that takes nothing for this many seconds has stopped reading. The time is shorter than RECHECK_SECONDS, so
# that a slow reader can't put off the next check of its credential.
LONGEST_SEND_SECONDS = 10.0

_KEEP_ALIVE = b": still here\n\n"


@dataclass(frozen=True, slots=True)
class StreamKind:
    """A kind of event streams: that of a worker, of a run, or of an environment."""

    # The first line that a reader gets, as a comment (SSE).
    opening: str
    # Matches the path of a request for such a stream. Its group is the id of the subject.
    path: re.Pattern[str]
    # Makes the ticket of a stream.
    ticket: type[StreamTicket]
    # Makes what hears the notifications for a stream.
    ear: type[StreamEar] = StreamEar
    # A stream waits this many seconds before it asks for news, so that one answer carries what comes together.
    pause_seconds: float = 0.1


class EventStreams(WaitingLane):
    """Asks the endpoint for new events, sends them, waits, and asks again, as long as the endpoint answers 200.

    The endpoint, a Django view, is asked anew each time, so it alone checks credentials and chooses what to send. This
    process queues no events: they are stored in a table, and the endpoint returns a limited number at a time. It is
    asked for more only when the reader has taken the events that were sent.
    """

    async def serve(
        self, kind: StreamKind, subject: UUID, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request for a stream of this kind. Raises ClientGone when the client has left."""
        body = (await receive()).get("body", b"")
        ear, ticket = kind.ear(), kind.ticket()
        scope[STREAM] = ticket
        with ExitStack() as at_the_end:
            # The stream subscribes to notifications before it first asks for events, so that it hears of every event
            # recorded after that answer.
            self._subscribe(ear, subject, at_the_end)
            answer = await self._ask(scope, body, receive, ear, ticket)
            if status_of(answer) != 200:
                for message in answer:
                    await send(message)
                return
            for other in ticket.hears_of:
                self._subscribe(ear, other, at_the_end)
                # The API key that opened the stream may have been revoked just before the stream subscribed to news of
                # the key. So the stream asks again at once, and the endpoint then checks the key.
                ear.changed = True
            await send({**answer[0], "headers": _lasting(answer[0]["headers"])})
            told = f": {kind.opening}\n\n".encode() + _content(answer)
            await asyncio.sleep(ticket.opening_seconds)
            while not self._stopping:
                until = asyncio.get_running_loop().time() + self._longest_wait(ticket)
                await _tell(send, told)
                if ticket.is_over:
                    break
                await self._wait(ear, receive, 0 if ticket.more else until, kind.pause_seconds)
                answer = await self._ask(scope, body, receive, ear, ticket)
                if status_of(answer) != 200:
                    break
                told = _content(answer) or _KEEP_ALIVE
            scope[LOG] |= {"asked": ticket.asked}
            await send({"type": "http.response.body", "body": b""})

    def _subscribe(self, ear: StreamEar, subject: UUID, at_the_end: ExitStack) -> None:
        self._listener.subscribe(ear, subject)
        at_the_end.callback(self._listener.unsubscribe, ear, subject)

    def _longest_wait(self, ticket: StreamTicket) -> float:
        """Return after how many seconds the stream asks again even without a notification."""
        patience = self._patience(RECHECK_SECONDS)
        return patience if ticket.again_seconds is None else min(patience, ticket.again_seconds)

    async def _wait(self, ear: StreamEar, receive: Receive, until: float, pause: float) -> None:
        """Return when it is time to ask for events again, or when the server stops."""
        clock = asyncio.get_running_loop().time
        while not (ear.changed or self._stopping) and (left := until - clock()) > 0:
            await ear.wait(receive, left)
        if not self._stopping:
            await asyncio.sleep(pause)


async def _tell(send: Send, chunk: bytes) -> None:
    try:
        async with asyncio.timeout(LONGEST_SEND_SECONDS):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError:
        raise ClientGone from None


def _content(answer: list[Message]) -> bytes:
    return b"".join(m.get("body", b"") for m in answer if m["type"] == "http.response.body")


def _lasting(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an event stream, made from the headers of the endpoint's first answer.

    Content-Length is left out, because it is the length of the first answer only. An added header stops nginx from
    buffering the stream.
    """
    kept = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    return [*kept, (b"x-accel-buffering", b"no")]
