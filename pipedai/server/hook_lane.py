"""Serves the hooks, the service's door for strangers, in half of the threads at most (SPEC §19, §25)."""

from pipedai.server.headers import HOOKS
from pipedai.server.memory_budget import HOLDING, Holding
from pipedai.server.request_scope import App, Receive, Scope, Send
from pipedai.server.turns import Turns


class HookLane:
    """Lets requests to hooks wait without a thread while others of them have their share, and passes all on. A flood
    of events from many addresses so leaves the other half of the threads to everybody else.
    """

    def __init__(self, threads: App, *, turns: int) -> None:
        self._threads = threads
        # One group leaves a quarter to the others, because all its requests may wait for the same locked row.
        self._turns = Turns(turns, most_held=turns - turns // 4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(HOOKS):
            await self._threads(scope, receive, send)
            return
        holding: Holding = scope[HOLDING]
        async with self._turns.turn(holding.group):
            await self._threads(scope, receive, send)
