"""The lane of waiting polls: no thread and no database connection while there is nothing to say."""

import time
from uuid import UUID

from pipedai.server.access_log import LOG
from pipedai.server.asgi_types import App, Message, Receive, Scope, Send
from pipedai.server.asking import Presence, WaitingLane, ask, status_of
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

    async def serve(self, worker_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one poll. Raises ClientGone if nobody is there any more to be answered."""
        body = (await receive()).get("body", b"")
        # Subscribed before the first question, so that nothing said after it goes unheard.
        with self._listener.subscribed(worker_id) as ear, Presence(receive, ear.wake) as client:
            poll = _Poll(PollTicket(worker_id), scope, body)
            while True:
                async with self._turns:
                    client.check()
                    ear.changed = False
                    await poll.ask(self._endpoint)
                if not poll.may_wait() or not await self._news(poll, ear, client):
                    break
            ticket = poll.ticket
            scope[LOG] |= {"asked": ticket.asked, "superseded": ticket.superseded or None}
            client.check()
            for message in poll.answer:
                await send(message)

    async def _news(self, poll: "_Poll", ear: Ear, client: "Presence") -> bool:
        """Wait until it is worth asking again; False when the answer at hand is to be given."""
        ticket = poll.ticket
        patience = self._patience(RECHECK_SECONDS)
        if ticket.next_due_seconds is not None:
            patience = min(patience, max(ticket.next_due_seconds, SHORTEST_WAIT_SECONDS))
        until = min(time.monotonic() + patience, poll.deadline)
        while True:
            client.check()
            if ear.newest_poll > ticket.order:
                ticket.superseded = True
                return False
            if self._stopping:
                return False
            left = until - time.monotonic()
            if ear.changed or left <= 0:
                return True
            await ear.wait(left)


class _Poll:
    """One poll: its request, its ticket, and the endpoint's latest answer."""

    def __init__(self, ticket: PollTicket, scope: Scope, body: bytes) -> None:
        self.ticket = ticket
        self.answer: list[Message] = []
        self.deadline = time.monotonic()
        self._began = self.deadline
        self._scope = {**scope, POLL: ticket}
        self._body = body

    async def ask(self, endpoint: App) -> None:
        """Get the endpoint's answer as it is now."""
        self.ticket.asked += 1
        self.ticket.empty = False
        self.ticket.next_due_seconds = None
        self.answer = await ask(endpoint, self._scope, self._body)
        self.deadline = self._began + self.ticket.wait_seconds

    def may_wait(self) -> bool:
        """Whether the answer is "nothing yet" and there is time for another."""
        may = status_of(self.answer) == 200 and self.ticket.empty
        return may and time.monotonic() < self.deadline
