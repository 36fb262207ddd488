"""The lane of event streams: no thread and no database connection while there is nothing to tell."""

import asyncio
from contextlib import ExitStack
from uuid import UUID

from pipedai.server.access_log import LOG
from pipedai.server.asgi_types import Message, Receive, Scope, Send
from pipedai.server.asking import WaitingLane, status_of
from pipedai.server.listen import StreamEar
from pipedai.server.refusal import ClientGone
from pipedai.server.ticket import STREAM, StreamTicket

# How long a stream trusts silence, counted from when it asked: with the asking itself, and a wait for its turn, the
# credential is looked at again every 15 s.
RECHECK_SECONDS = 12.0
# Events that come together are told together.
SHORTEST_WAIT_SECONDS = 0.1
# Who takes nothing for so long is not reading. Shorter than a stream's trust, which a slow reader must not stretch.
LONGEST_SEND_SECONDS = 10.0

_OPENING = b": worker events\n\n"
_KEEP_ALIVE = b": still here\n\n"


class EventStreams(WaitingLane):
    """Asks the stream endpoint for what there is to tell, tells it, waits, and asks again, as long as it answers 200.

    So credentials, checks and what is told are the endpoint's alone. Nothing is queued in this process: a reader's
    backlog is the table, of which the endpoint gives a bounded piece at a time, and the next piece is asked for only
    when the reader has taken the last.
    """

    async def serve(self, worker_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for a stream. Raises ClientGone when nobody reads it any more."""
        body = (await receive()).get("body", b"")
        ear = StreamEar()
        ticket = scope[STREAM] = StreamTicket()
        with ExitStack() as at_the_end:
            # Subscribed before the first question, so that nothing recorded after it goes unheard.
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
                ear.changed = True  # the key may have died before we subscribed
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
        """Return when it is worth asking again, or when the server stops."""
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
    """The headers without the length of the first piece; nginx is told not to hold anything back."""
    kept = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    return [*kept, (b"x-accel-buffering", b"no")]
