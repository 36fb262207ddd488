"""What lanes that wait share: asking an endpoint for its answer."""

import random
from uuid import UUID

from pipedai.client_address import network_of
from pipedai.server.asgi_types import App, Message, Receive, Scope
from pipedai.server.listen import Ear, Listener
from pipedai.server.request_body import Replay
from pipedai.server.request_scope import CLIENT
from pipedai.server.turns import Turns

# How often a waiter looks while it does not hear the database's notifications.
UNHEALTHY_RECHECK_SECONDS = 2.0


class WaitingLane:
    """A lane whose requests wait, and ask `endpoint` again. At most `turns` askings are under way at once: however many
    waiters wake together, the rest of the endpoint's threads are left to other requests, and workspaces take turns.
    """

    def __init__(self, endpoint: App, listener: Listener, *, turns: int) -> None:
        self._endpoint = endpoint
        self._listener = listener
        self._turns = Turns(turns)
        self._stopping = False

    def stop(self) -> None:
        """Answer all that wait now, and let no other wait: the server is going down."""
        self._stopping = True
        self._listener.wake_all()

    def _patience(self, trusted: float) -> float:
        """For how long to trust silence: `trusted` seconds, if notifications are heard."""
        patience = trusted if self._listener.healthy else UNHEALTHY_RECHECK_SECONDS
        # Jitter keeps those that woke together from doing so again.
        return patience * random.uniform(0.8, 1)  # noqa: S311

    async def _ask(
        self, scope: Scope, body: bytes, receive: Receive, ear: Ear, workspace_id: UUID | None
    ) -> list[Message]:
        """The endpoint's whole answer, as it is now. Raises ClientGone if nobody is there any more to be answered.

        The turn is the workspace's. The first time nobody has checked yet who asks, so that it is the address's:
        nobody takes the turns of another by naming their worker.
        """
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        async with self._turns.turn(workspace_id or network_of(scope.get(CLIENT, ""))):
            await ear.wait(receive, 0)
            ear.changed = False
            await self._endpoint(scope, Replay(body, _nothing_more), keep)
        return answer


def status_of(answer: list[Message]) -> int:
    """The status of a whole answer."""
    return int(next(m["status"] for m in answer if m["type"] == "http.response.start"))


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
