"""Serves requests that may hash a password (SPEC §19). They hold no thread while they wait for a permit."""

import asyncio
from contextlib import ExitStack

from pipedai.client_address import network_of
from pipedai.server.ears import Ear
from pipedai.server.request_body import whole_answer
from pipedai.server.request_scope import App, Message, Receive, Scope, Send
from pipedai.server.ticket import PASSWORD, PasswordTicket
from pipedai.server.turns import Turn, Turns

PATIENCE_SECONDS = 5.0
# How many requests may wait to hash a password. Each keeps a connection and its body in memory, and no machine works
# off a longer queue within PATIENCE_SECONDS, so further requests are refused at once.
_MOST_WAITING = 500
# How many requests of one client address may wait to hash a password. The number exceeds the logins that one address
# may try within a minute.
_MOST_OF_AN_ADDRESS = 100

# The paths whose POST may hash a password. accounts/tests/test_password_routes.py fails if one is missing.
# See docs/decisions/fast-paths.md.
_PATHS = frozenset(
    {
        "/api/v1/auth/login",
        "/api/v1/auth/register",
        "/api/v1/auth/change-password",
        "/api/v1/auth/change-email",
        "/api/v1/auth/reset-password",
        "/console/sign-in",
        "/console/register",
        "/console/account/password",
        "/console/account/email",
        "/console/account/invitation",
        "/console/account/reset",
        "/console/account/register",
        "/admin/login/",
        "/admin/account/",
    }
)


def may_hash(scope: Scope) -> bool:
    """Whether this request may have to hash a password. The endpoint decides whether there is a password to hash."""
    return scope["path"] in _PATHS and scope["method"] == "POST"


def password_turns(permits: int) -> Turns:
    """Return the Turns for hashing, where client addresses take turns. A permit is a share of the memory."""
    return Turns(permits, most_waiting=_MOST_WAITING, most_of_a_group=_MOST_OF_AN_ADDRESS)


class PasswordLane:
    """Asks the endpoint once, and a second time with a permit if it answers 503 because it must hash. So credentials,
    throttles and validation are checked before the wait, and every answer is the endpoint's own. A request that gets no
    permit in time is answered with that 503.
    """

    def __init__(self, endpoint: App, turns: Turns, *, patience: float = PATIENCE_SECONDS) -> None:
        self._endpoint = endpoint
        self._turns = turns
        self._patience = patience

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        ticket = PasswordTicket()
        token = PASSWORD.set(ticket)
        try:
            answer = await whole_answer(self._endpoint, scope, body)
            if ticket.hashes:
                answer = await self._ask_in_turn(ticket, scope, body, receive) or answer
        finally:
            PASSWORD.reset(token)
        for message in answer:
            await send(message)

    async def _ask_in_turn(
        self, ticket: PasswordTicket, scope: Scope, body: bytes, receive: Receive
    ) -> list[Message] | None:
        """Return the endpoint's second answer, made with leave to hash, or None if no memory came in time."""
        ear = Ear()
        address = network_of(scope["client"][0])
        turn = self._turns.ask(address, 1, wake=lambda _: ear.wake())
        with ExitStack() as at_the_end:
            at_the_end.callback(self._turns.leave, turn)
            if not await self._comes(turn, ear, receive):
                return None
            ticket.granted = True
            asking = asyncio.ensure_future(whole_answer(self._endpoint, scope, body))
            # If the client leaves, this call is cancelled, but the thread goes on hashing. The permit is given back
            # only when the thread is done, because its hash takes memory until then.
            held = at_the_end.pop_all()
            asking.add_done_callback(lambda _: held.close())
        return await asyncio.shield(asking)

    async def _comes(self, turn: Turn, ear: Ear, receive: Receive) -> bool:
        """Wait for the permit of the turn. Return whether it came in time. Raises ClientGone if the client left."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while not (turn.granted or turn.refused) and (left := until - clock()) > 0:
            await ear.wait(receive, left)
        if turn.granted:
            await ear.wait(receive, 0)
        return turn.granted
