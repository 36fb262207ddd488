"""The lane of waiting polls: no thread and no database connection while there is nothing to say."""

import time
from uuid import UUID

from pipedai.server.access_log import LOG
from pipedai.server.asgi_types import Message, Receive, Scope, Send
from pipedai.server.asking import WaitingLane, status_of
from pipedai.server.listen import Ear
from pipedai.server.ticket import POLL, PollTicket

# How long a waiter trusts silence.
RECHECK_SECONDS = 15.0
# A run that is due but was not handed out must not make its waiter ask without pause.
SHORTEST_WAIT_SECONDS = 0.1


class LongPoll(WaitingLane):
    """Asks the poll endpoint, waits while its answer is "nothing yet", and asks again.

    So credentials, checks, errors and the answer itself are the endpoint's alone, and all of them
    are looked at again each time.
    """

    _start: Message | None = None

    async def serve(self, worker_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one poll. Raises ClientGone if nobody is there any more to be answered."""
        body = (await receive()).get("body", b"")
        began = time.monotonic()
        ticket = scope[POLL] = PollTicket(worker_id)
        ear = Ear()
        # Subscribed before the first question, so that nothing said after it goes unheard.
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
        """Whether the answer at hand is to be given, though it is "nothing yet"."""
        ticket.superseded = ear.newest_poll > ticket.order
        return ticket.superseded or self._stopping

    def _patience_with(self, ticket: PollTicket) -> float:
        """For how many seconds to trust silence."""
        patience = self._patience(RECHECK_SECONDS)
        if ticket.next_due_seconds is None:
            return patience
        return min(patience, max(ticket.next_due_seconds, SHORTEST_WAIT_SECONDS))

    def _share_start(self, answer: list[Message]) -> None:
        """Keep for all that wait the start of "nothing yet" once: status and headers are 0.9 KB, and the same."""
        if answer[0] != self._start:
            self._start = answer[0]
        answer[0] = self._start
