"""A flood of explanations, by a viewer, of the last runs in a long queue."""

from collections import Counter

from bench.abuse.flooding import Flood, Stage, ask_again_and_again
from bench.abuse.floods.queues import LongQueue, make_long_queue
from bench.abuse.tenants import new_account
from bench.cast import Account
from bench.http_client import Connection, request

_AT_ONCE = 8


class Explanations(Flood):
    """An explanation of a run that waits for others counts these, and asks what the polls of its workers would get."""

    name = "explanations"
    what = f"{_AT_ONCE} explanations at once of the last runs in a queue of 10,000"
    _viewer: Account
    _queue: LongQueue

    def prepare(self, stage: Stage) -> None:
        self._viewer, self._queue = new_account(stage.port), make_long_queue(stage)
        owner = self._queue.owner
        members = f"/environments/{self._queue.pairs[0].environment_id}/members"
        with Connection(stage.port) as connection:
            connection.call(
                "POST", members, cookie=owner.cookie, address=owner.address,
                body={"email": self._viewer.email, "role": "viewer"},
            )  # fmt: skip

    async def attack(self, port: int, answers: Counter[str]) -> None:
        runs = [f"runs/{run_id}" for run_id in self._queue.last_runs]
        triggers = [f"triggers/{pair.trigger_id}" for pair in self._queue.pairs[:2]]
        cookie, address = self._viewer.cookie, self._viewer.address
        requests = [
            request("GET", f"/{what}/explain", cookie=cookie, address=address)
            for what in (*runs, *triggers)
        ]
        await ask_again_and_again(port, requests, answers, times=_AT_ONCE)
