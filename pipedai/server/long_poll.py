"""Serves requests that wait, without holding a thread or a database connection meanwhile: polls, while there is no run
to hand out, and requests for which a scheduler asks a tenant's server.
"""

import random
import re
import time
from collections.abc import Sequence
from uuid import UUID

from pipedai.server.listen import Ear, Listener
from pipedai.server.memory_budget import Replay, whole_answer
from pipedai.server.outer import LOG
from pipedai.server.request_scope import CLIENT, App, Message, Receive, Scope, Send, network_of
from pipedai.server.ticket import ASKING, POLL, AskingTicket, PollTicket, Ticket
from pipedai.server.turns import Turns

# While the process does not receive the database's notifications, a waiting request asks the endpoint again after about
# this many seconds.
UNHEALTHY_RECHECK_SECONDS = 2.0


class WaitingLane:
    """Serves requests that wait for news, by asking the view at `endpoint` again and again. At most `turns` of them ask
    at once, and workspaces take turns, so that some threads stay free for others.
    """

    def __init__(self, endpoint: App, listener: Listener, *, turns: int) -> None:
        self._endpoint = endpoint
        self._listener = listener
        self._turns = Turns(turns)
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True
        self._listener.wake_all()

    def _patience(self, trusted: float) -> float:
        """Return the seconds to wait for a notification: about `trusted`, or fewer while no notifications arrive."""
        patience = trusted if self._listener.healthy else UNHEALTHY_RECHECK_SECONDS
        # Without the random factor, requests that were woken together would ask again together.
        return patience * random.uniform(0.8, 1)  # noqa: S311

    async def _ask(
        self, scope: Scope, body: bytes, receive: Receive, ear: Ear, ticket: Ticket
    ) -> list[Message]:
        """Return the endpoint's answer. Raises ClientGone. Workspaces take turns at asking. Before a request is
        authenticated, its client's address takes turns instead, so that a stranger can't use up a workspace's turns.
        """
        async with self._turns.turn(ticket.workspace_id or network_of(scope.get(CLIENT, ""))):
            await ear.wait(receive, 0)
            ear.pour(ticket)
            return await whole_answer(self._endpoint, scope, body)


def status_of(answer: list[Message]) -> int:
    return int(next(m["status"] for m in answer if m["type"] == "http.response.start"))


# A waiting poll asks again after this many seconds even without a notification.
RECHECK_SECONDS = 15.0
# The shortest time in seconds after which a poll asks the endpoint again because a run is due. Without it a poll would
# ask without end if the endpoint does not hand out a run that is due.
SHORTEST_WAIT_SECONDS = 0.1
# A claim of the next run may wait only if its body has this field. If the name is written otherwise, which JSON allows,
# the claim is answered at once.
_WAIT_FIELD = b'"wait"'


class LongPoll(WaitingLane):
    """Asks the endpoint of polls or of `claim-next`, waits if the answer has no run, and asks again. Only the endpoint,
    a Django view, decides on credentials, errors and the answer.
    """

    _start: Message | None = None

    async def serve(self, worker_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        if scope["method"] == "POST" and _WAIT_FIELD not in body:
            await self._endpoint(scope, Replay(body, receive), send)
            return
        began = time.monotonic()
        ticket = scope[POLL] = PollTicket(worker_id)
        ear = Ear()
        # The poll subscribes to notifications before it first asks, so that it hears of everything that happens after
        # that answer.
        self._listener.subscribe(ear, worker_id)
        pools: Sequence[UUID] = ()
        try:
            while True:
                ticket.begin()
                answer = await self._ask(scope, body, receive, ear, ticket)
                # All waiting polls share one copy of the status and headers of an empty answer: 0.9 KB less for each.
                if answer[0] != self._start:
                    self._start = answer[0]
                answer[0] = self._start
                left = began + ticket.wait_seconds - time.monotonic()
                if status_of(answer) != 200 or not ticket.empty or left <= 0:
                    break
                is_new = not set(ticket.pool_ids) <= set(pools)
                pools = self._listen_to_pools(ear, pools, ticket.pool_ids)
                if is_new:
                    # Runs of these pools may have been queued since the view was asked, so it is asked once more.
                    continue
                # The poll waits for a notification at most until the worker's next queued run is due.
                patience = self._patience(RECHECK_SECONDS)
                if ticket.next_due_seconds is not None:
                    patience = min(patience, max(ticket.next_due_seconds, SHORTEST_WAIT_SECONDS))
                until = time.monotonic() + min(left, patience)
                while (
                    not (ends := self._ends(ticket, ear))
                    and not ear.changed
                    and (left := until - time.monotonic()) > 0
                ):
                    await ear.wait(receive, left)
                if ends:
                    break
        finally:
            self._listen_to_pools(ear, pools, ())
            self._listener.unsubscribe(ear, worker_id)
        scope[LOG] |= {"asked": ticket.asked, "superseded": ticket.superseded or None}
        await ear.wait(receive, 0)
        for message in answer:
            await send(message)

    def _listen_to_pools(
        self, ear: Ear, old: Sequence[UUID], new: Sequence[UUID]
    ) -> Sequence[UUID]:
        """Subscribe the poll to runs of the pools `new`, and no longer to those of the pools `old`. Return `new`."""
        for pool_id in old:
            self._listener.unsubscribe(ear, pool_id)
        for pool_id in new:
            self._listener.subscribe(ear, pool_id)
        return new

    def _ends(self, ticket: PollTicket, ear: Ear) -> bool:
        """Whether a poll without a run must end, because a newer poll of its worker began or the server stops."""
        ticket.superseded = ear.newest_poll > ticket.order
        return ticket.superseded or self._stopping


# A request waits this many seconds at most. A scheduler asks for ten; a killed scheduler's question ends after twenty.
PATIENCE_SECONDS = 25.0
# A waiting request asks again after about this many seconds even without a notification.
_RECHECK_SECONDS = 5.0

# The group of an id in a path's regular expression.
ID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
# The paths whose POST may wait. workspaces/connections/tests/test_waiting.py fails if one is missing.
# See docs/decisions/fast-paths.md.
_PATH = re.compile(
    f"/api/v1/connections/{ID}/authorize"
    f"|/console/connections/{ID}/connect"
    f"|/account/connections/{ID}/callback"
)


def asking_connection(scope: Scope) -> UUID | None:
    """Return the id of the connection if this request makes a scheduler ask the connection's servers, else None."""
    if scope["method"] != "POST" or (match := _PATH.fullmatch(scope["path"])) is None:
        return None
    return UUID(next(filter(None, match.groups())))


class AskingLane(WaitingLane):
    """Asks the endpoint, waits if no scheduler has answered yet, and asks again. Only the endpoint decides on
    credentials, errors and the answer.
    """

    async def serve(self, connection_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        until = time.monotonic() + PATIENCE_SECONDS
        ticket, ear = AskingTicket(), Ear()
        token = ASKING.set(ticket)
        # The request subscribes to notifications before it first asks, so that it hears of every later answer.
        self._listener.subscribe(ear, connection_id)
        try:
            while True:
                left = until - time.monotonic()
                ticket.begin(is_last=left <= 0 or self._stopping)
                answer = await self._ask(scope, body, receive, ear, ticket)
                if not ticket.waits or ticket.is_last:
                    break
                left = min(until - time.monotonic(), self._patience(_RECHECK_SECONDS))
                if not ear.changed and not self._stopping and left > 0:
                    await ear.wait(receive, left)
        finally:
            self._listener.unsubscribe(ear, connection_id)
            ASKING.reset(token)
        for message in answer:
            await send(message)
