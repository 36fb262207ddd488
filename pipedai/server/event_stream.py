"""Serves event streams without a thread or a database connection while there is no new event."""

import asyncio
from contextlib import ExitStack
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
# A stream waits this many seconds before it asks for events, so that one answer carries events that come together.
SHORTEST_WAIT_SECONDS = 0.1
# A reader that takes nothing for this many seconds has stopped reading. The time is shorter than RECHECK_SECONDS, so
# that a slow reader can't put off the next check of its credential.
LONGEST_SEND_SECONDS = 10.0

_OPENING = b": worker events\n\n"
_KEEP_ALIVE = b": still here\n\n"


class EventStreams(WaitingLane):
    """Asks the endpoint for new events, sends them, waits, and asks again, as long as the endpoint answers 200.

    The endpoint, a Django view, is asked anew each time, so it alone checks credentials and chooses what to send. This
    process queues no events: they are stored in a table, and the endpoint returns a limited number at a time. It is
    asked for more only when the reader has taken the events that were sent.
    """

    async def serve(self, worker_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for a stream. Raises ClientGone when the client has left."""
        body = (await receive()).get("body", b"")
        ear = StreamEar()
        ticket = scope[STREAM] = StreamTicket()
        with ExitStack() as at_the_end:
            # The stream subscribes to notifications before it first asks for events, so that it hears of every event
            # recorded after that answer.
            self._listener.subscribe(ear, worker_id)
            at_the_end.callback(self._listener.unsubscribe, ear, worker_id)
            answer = await self._ask(scope, body, receive, ear, ticket.workspace_id)
            if status_of(answer) != 200:
                for message in answer:
                    await send(message)
                return
            if ticket.key_id is not None:
                self._listener.subscribe(ear, ticket.key_id)
                at_the_end.callback(self._listener.unsubscribe, ear, ticket.key_id)
                # The API key that opened the stream may have been revoked just before the stream subscribed to news of
                # the key. So the stream asks again at once, and the endpoint then checks the key.
                ear.changed = True
            await send({**answer[0], "headers": _lasting(answer[0]["headers"])})
            told = _OPENING + _content(answer)
            while not self._stopping:
                until = asyncio.get_running_loop().time() + self._patience(RECHECK_SECONDS)
                await _tell(send, told)
                await self._wait(ear, receive, 0 if ticket.more else until)
                answer = await self._ask(scope, body, receive, ear, ticket.workspace_id)
                if status_of(answer) != 200:
                    break
                told = _content(answer) or _KEEP_ALIVE
            scope[LOG] |= {"asked": ticket.asked}
            await send({"type": "http.response.body", "body": b""})

    async def _wait(self, ear: StreamEar, receive: Receive, until: float) -> None:
        """Return when it is time to ask for events again, or when the server stops."""
        clock = asyncio.get_running_loop().time
        while not (ear.changed or self._stopping) and (left := until - clock()) > 0:
            await ear.wait(receive, left)
        if not self._stopping:
            await asyncio.sleep(SHORTEST_WAIT_SECONDS)


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
