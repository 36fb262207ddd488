"""Serves event streams without a thread or a database connection while there is no new event."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from pipedai.logs import get_logger
from pipedai.server.listen import EventsEar, Listener, StreamEar
from pipedai.server.long_poll import WaitingLane, status_of
from pipedai.server.outer import LOG
from pipedai.server.request_scope import App, ClientGone, Message, Receive, Scope, Send, without
from pipedai.server.ticket import STREAM, Piece, ReadTogether, StreamTicket

log = get_logger(__name__)

# A stream asks for events again after this many seconds even without a notification. Asking takes time as well, so the
# stream's credential is checked again about every 15 s.
RECHECK_SECONDS = 12.0
# A reader that takes nothing for this many seconds has stopped reading. The time is shorter than RECHECK_SECONDS, so
# that a slow reader can't put off the next check of its credential.
LONGEST_SEND_SECONDS = 10.0
# Events that FanOut has read may be sent for this many seconds after the last check of the stream's credential.
LONGEST_UNCHECKED_SECONDS = 14.0
# Streams that are woken within this time share one statement.
GATHER_SECONDS = 0.2
# One statement reads for at most this many pairs of a subject and a last event, so that its answer stays small.
MOST_TOGETHER = 100

_KEEP_ALIVE = b": still here\n\n"


@dataclass(frozen=True, slots=True)
class StreamKind:
    # The first line that a reader gets, as a comment (SSE).
    opening: str
    # Matches the path of a request for such a stream. The pattern's group is the id of the stream's subject.
    path: re.Pattern[str]
    # Makes the ticket of a stream.
    ticket: type[StreamTicket]
    # Makes the Ear that hears the notifications for a stream.
    ear: type[StreamEar] = StreamEar
    # A stream waits this many seconds before it asks for news, so that one answer has all news of a moment.
    pause_seconds: float = 0.1


Pieces = dict[tuple[UUID, int], Piece]
# Runs a function in one of the threads that serve requests.
InThread = Callable[[Callable[[], Pieces]], Awaitable[Pieces]]


class FanOut:
    """Collects the wishes of streams for GATHER_SECONDS, and reads new events for all of them, one statement at a time,
    so that streams hold one thread at most. Streams of one subject that have sent the same last event share the result.
    """

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        # The reads that streams wait for. Two streams wait for the same one if they read by the same function, about
        # the same subject, after the same event.
        self._wanted: dict[ReadTogether, dict[tuple[UUID, int], asyncio.Future[Piece | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def piece(self, read: ReadTogether, subject: UUID, after: int) -> Piece | None:
        waiting = self._wanted.setdefault(read, {})
        found = waiting.get((subject, after))
        if found is None:
            found = waiting[subject, after] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        # Several streams may wait for the same piece, and a stream that ends must not cancel it for the others.
        return await asyncio.shield(found)

    async def _work(self) -> None:
        try:
            while self._wanted:
                await asyncio.sleep(GATHER_SECONDS)
                wanted, self._wanted = self._wanted, {}
                for read, waiting in wanted.items():
                    pairs = list(waiting)
                    for start in range(0, len(pairs), MOST_TOGETHER):
                        await self._read(read, pairs[start : start + MOST_TOGETHER], waiting)
        finally:
            self._task = None

    async def _read(
        self,
        read: ReadTogether,
        pairs: list[tuple[UUID, int]],
        waiting: dict[tuple[UUID, int], "asyncio.Future[Piece | None]"],
    ) -> None:
        pieces: Pieces | None = None
        try:
            pieces = await self._in_thread(partial(read, pairs))
        except Exception as error:
            log.warning("events could not be read for streams", error=type(error).__name__)
        for pair in pairs:
            waiting[pair].set_result(
                None if pieces is None else pieces.get(pair, Piece(b"", pair[1]))
            )


class EventStreams(WaitingLane):
    """Asks the endpoint for new events, sends them when the reader has taken the earlier ones, waits, and asks again as
    long as the endpoint answers 200. Only the endpoint, a Django view, checks credentials. While only events of a run
    are new, `fan_out` reads them, and the endpoint is asked only about every 12 s.
    """

    def __init__(
        self, endpoint: App, listener: Listener, *, turns: int, fan_out: FanOut | None = None
    ) -> None:
        super().__init__(endpoint, listener, turns=turns)
        self._fan_out = fan_out

    async def serve(
        self, kind: StreamKind, subject: UUID, scope: Scope, receive: Receive, send: Send
    ) -> None:
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
            # The first answer's Content-Length is not that of the stream, and nginx must not buffer the stream.
            kept = without(answer[0]["headers"], b"content-length")
            await send({**answer[0], "headers": [*kept, (b"x-accel-buffering", b"no")]})
            told = f": {kind.opening}\n\n".encode() + _content(answer)
            await asyncio.sleep(ticket.opening_seconds)
            clock = asyncio.get_running_loop().time
            asked_at, until = clock(), self._next_asking(ticket)
            while not self._stopping:
                if told:
                    await _tell(send, told, asked_at + LONGEST_UNCHECKED_SECONDS)
                if ticket.is_over:
                    break
                await self._wait(ear, receive, 0 if ticket.more else until)
                if (piece := await self._piece(ear, subject, ticket, until)) is not None:
                    told, ticket.sent = piece.text, piece.last
                    continue
                if not self._stopping:
                    await asyncio.sleep(kind.pause_seconds)
                answer = await self._ask(scope, body, receive, ear, ticket)
                if status_of(answer) != 200:
                    break
                asked_at, until = clock(), self._next_asking(ticket)
                told = _content(answer) or _KEEP_ALIVE
            scope[LOG] |= {"asked": ticket.asked}
            await send({"type": "http.response.body", "body": b""})

    def _subscribe(self, ear: StreamEar, subject: UUID, at_the_end: ExitStack) -> None:
        self._listener.subscribe(ear, subject)
        at_the_end.callback(self._listener.unsubscribe, ear, subject)

    def _next_asking(self, ticket: StreamTicket) -> float:
        patience = self._patience(RECHECK_SECONDS)
        if ticket.again_seconds is not None:
            patience = min(patience, ticket.again_seconds)
        return asyncio.get_running_loop().time() + patience

    async def _piece(
        self, ear: StreamEar, subject: UUID, ticket: StreamTicket, until: float
    ) -> Piece | None:
        """Return a stream's new events if only events are new. Return None if the endpoint must be asked instead."""
        if (
            self._fan_out is None
            or ticket.read_together is None
            or ticket.sent is None
            or not isinstance(ear, EventsEar)
            or not ear.has_events
            or ear.changed
            or ticket.more
            or self._stopping
            or asyncio.get_running_loop().time() >= until
        ):
            return None
        # If events are stored while the piece is read, their notification sets `has_events` again.
        ear.has_events = False
        piece = await self._fan_out.piece(ticket.read_together, subject, ticket.sent)
        if piece is not None and piece.more:
            ear.has_events = True
        return piece

    async def _wait(self, ear: StreamEar, receive: Receive, until: float) -> None:
        clock = asyncio.get_running_loop().time
        while not (ear.heard or self._stopping) and (left := until - clock()) > 0:
            await ear.wait(receive, left)


async def _tell(send: Send, chunk: bytes, latest: float) -> None:
    """Send a chunk, until the time `latest` at most. Raises ClientGone if the reader does not take it in time."""
    longest = asyncio.get_running_loop().time() + LONGEST_SEND_SECONDS
    try:
        async with asyncio.timeout_at(min(longest, latest)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError:
        raise ClientGone from None


def _content(answer: list[Message]) -> bytes:
    return b"".join(m.get("body", b"") for m in answer if m["type"] == "http.response.body")
