"""The base of the lanes of waiting polls and event streams, which ask a Django view for the answer."""

import random

from pipedai.client_address import network_of
from pipedai.server.ears import Ear
from pipedai.server.listen import Listener
from pipedai.server.request_body import whole_answer
from pipedai.server.request_scope import CLIENT, App, Message, Receive, Scope
from pipedai.server.ticket import AskingTicket, PollTicket, StreamTicket
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
        """Return the seconds to wait for a notification: about `trusted`, or few while none can arrive."""
        patience = trusted if self._listener.healthy else UNHEALTHY_RECHECK_SECONDS
        # Without the random factor, requests that were woken together would ask again together.
        return patience * random.uniform(0.8, 1)  # noqa: S311

    async def _ask(
        self,
        scope: Scope,
        body: bytes,
        receive: Receive,
        ear: Ear,
        ticket: PollTicket | StreamTicket | AskingTicket,
    ) -> list[Message]:
        """Return the endpoint's answer. Raises ClientGone. Workspaces take turns at asking. Before a request is
        authenticated its client's address takes part instead, so that a stranger can't use up a workspace's turns.
        """
        async with self._turns.turn(ticket.workspace_id or network_of(scope.get(CLIENT, ""))):
            await ear.wait(receive, 0)
            ear.pour(ticket)
            return await whole_answer(self._endpoint, scope, body)


def status_of(answer: list[Message]) -> int:
    return int(next(m["status"] for m in answer if m["type"] == "http.response.start"))
