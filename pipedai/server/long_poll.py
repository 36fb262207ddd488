"""Serves waiting polls without a thread or a database connection while there is no run to hand out."""

import time
from uuid import UUID

from pipedai.server.access_log import LOG
from pipedai.server.asgi_types import Message, Receive, Scope, Send
from pipedai.server.asking import WaitingLane, status_of
from pipedai.server.listen import Ear
from pipedai.server.ticket import POLL, PollTicket

# A waiter asks again after this time even without a notification.
RECHECK_SECONDS = 15.0
# This pause keeps a waiter from asking without end when a run is due but the endpoint does not hand it out.
SHORTEST_WAIT_SECONDS = 0.1


class LongPoll(WaitingLane):
    """Asks the poll endpoint, waits while its answer is "nothing yet", and asks again.

    So the endpoint alone decides on credentials, checks, errors and the answer, and does so anew each time.
    """

    _start: Message | None = None

    async def serve(self, worker_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one poll. Raises ClientGone if the client has left."""
        body = (await receive()).get("body", b"")
        began = time.monotonic()
        ticket = scope[POLL] = PollTicket(worker_id)
        ear = Ear()
        # We subscribe before we first ask, so that we hear of everything that happens after that answer.
        self._listener.subscribe(ear, worker_id)
        try:
            while True:
                ticket.begin()
                answer = await self._ask(scope, body, receive, ear, ticket.workspace_id)
                self._share_start(answer)
                left = began + ticket.wait_seconds - time.monotonic()
                if status_of(answer) != 200 or not ticket.empty or left <= 0:
                    break
                until = time.monotonic() + min(left, self._patience_with(ticket))
                while (
                    not (ends := self._ends(ticket, ear))
                    and not ear.changed
                    and (left := until - time.monotonic()) > 0
                ):
                    await ear.wait(receive, left)
                if ends:
                    break
        finally:
            self._listener.unsubscribe(ear, worker_id)
        scope[LOG] |= {"asked": ticket.asked, "superseded": ticket.superseded or None}
        await ear.wait(receive, 0)
        for message in answer:
            await send(message)

    def _ends(self, ticket: PollTicket, ear: Ear) -> bool:
        """Whether to send the present answer although it is "nothing yet"."""
        ticket.superseded = ear.newest_poll > ticket.order
        return ticket.superseded or self._stopping

    def _patience_with(self, ticket: PollTicket) -> float:
        """Return after how many seconds to ask again if no notification comes."""
        patience = self._patience(RECHECK_SECONDS)
        if ticket.next_due_seconds is None:
            return patience
        return min(patience, max(ticket.next_due_seconds, SHORTEST_WAIT_SECONDS))

    def _share_start(self, answer: list[Message]) -> None:
        """Let all waiting polls share one copy of the status and headers of "nothing yet", which take 0.9 KB."""
        if answer[0] != self._start:
            self._start = answer[0]
        answer[0] = self._start
