"""Serves requests that wait for what a scheduler asks of a tenant's server. They hold no thread while they wait."""

import re
import time
from uuid import UUID

from pipedai.server.listen import Ear
from pipedai.server.long_poll import WaitingLane
from pipedai.server.request_scope import Receive, Scope, Send
from pipedai.server.ticket import ASKING, AskingTicket

# How long a request waits at most. A scheduler asks for ten seconds, and what a killed one asked is over after twenty.
PATIENCE_SECONDS = 25.0
# A waiting request asks again after about this many seconds even without a notification.
_RECHECK_SECONDS = 5.0

# Their POST may wait. workspaces/connections/tests/test_waiting.py fails if one is missing.
# See docs/decisions/fast-paths.md.
_ID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_PATH = re.compile(
    f"/api/v1/connections/{_ID}/authorize"
    f"|/console/connections/{_ID}/connect"
    f"|/account/connections/{_ID}/callback"
)


def asking_connection(scope: Scope) -> UUID | None:
    """Return the id of the connection whose servers are to be asked by this request, else None."""
    if scope["method"] != "POST" or (match := _PATH.fullmatch(scope["path"])) is None:
        return None
    return UUID(next(filter(None, match.groups())))


class AskingLane(WaitingLane):
    """Asks the endpoint, waits while it has no answer of a scheduler, and asks again. The endpoint alone decides on
    credentials, errors and the answer.
    """

    async def serve(self, connection_id: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        until = time.monotonic() + PATIENCE_SECONDS
        ticket, ear = AskingTicket(), Ear()
        token = ASKING.set(ticket)
        # It subscribes before it first asks, so that it hears of every answer after that.
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
