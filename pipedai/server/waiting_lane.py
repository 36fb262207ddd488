"""The base of the parts of the server that hold waiting polls and event streams.

It asks the endpoint, which is a Django view, for an answer on behalf of such a request.
"""

import random

from pipedai.client_address import network_of
from pipedai.server.ears import Ear
from pipedai.server.listen import Listener
from pipedai.server.request_body import whole_answer
from pipedai.server.request_scope import CLIENT, App, Message, Receive, Scope
from pipedai.server.ticket import PollTicket, StreamTicket
from pipedai.server.turns import Turns

# While the process does not receive the database's notifications, a waiting request asks the endpoint again after about
# this many seconds.
UNHEALTHY_RECHECK_SECONDS = 2.0


class WaitingLane:
    """Serves one kind of request that waits for news, by asking the view at `endpoint` for an answer again and again.

    At most `turns` requests ask at the same time, and workspaces take turns at asking. So some of the endpoint's
    threads stay free for other requests, however many waiting requests wake together.
    """

    def __init__(self, endpoint: App, listener: Listener, *, turns: int) -> None:
        self._endpoint = endpoint
        self._listener = listener
        self._turns = Turns(turns)
        self._stopping = False

    def stop(self) -> None:
        """Answer all waiting requests now, and let no other request wait, because the server is stopping."""
        self._stopping = True
        self._listener.wake_all()

    def _patience(self, trusted: float) -> float:
        """Return for how many seconds to wait for a notification before asking the endpoint again without one.

        The result is about `trusted` seconds while the database's notifications arrive, and about
        UNHEALTHY_RECHECK_SECONDS while they don't.
        """
        patience = trusted if self._listener.healthy else UNHEALTHY_RECHECK_SECONDS
        # Without the random factor, requests that were woken together would ask again together.
        return patience * random.uniform(0.8, 1)  # noqa: S311

    async def _ask(
        self,
        scope: Scope,
        body: bytes,
        receive: Receive,
        ear: Ear,
        ticket: PollTicket | StreamTicket,
    ) -> list[Message]:
        """Return the endpoint's whole answer. Raises ClientGone if the client has left.

        Only a limited number of requests may ask the endpoint at once, and workspaces take turns at it. Until the
        endpoint has authenticated the request, its client's address takes part in place of its workspace. Otherwise a
        stranger could use up a workspace's turns by sending requests for one of its workers.
        """
        async with self._turns.turn(ticket.workspace_id or network_of(scope.get(CLIENT, ""))):
            await ear.wait(receive, 0)
            ear.pour(ticket)
            return await whole_answer(self._endpoint, scope, body)


def status_of(answer: list[Message]) -> int:
    return int(next(m["status"] for m in answer if m["type"] == "http.response.start"))
