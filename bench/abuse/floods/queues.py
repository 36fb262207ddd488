"""A flood of polls, claims of the next run and explanations by a tenant whose queue is as long as it may be."""

from collections import Counter
from dataclasses import dataclass

from bench.abuse.copies import copy_row
from bench.abuse.flooding import Flood, Stage, ask_again_and_again
from bench.abuse.tenants import new_customer
from bench.cast import Account, Pair
from bench.http_client import request

_IN_POOL = 3
_QUEUED = 10_000  # as many as an environment may have
_AT_ONCE = 8
_CAPACITY = 50


@dataclass(frozen=True, slots=True, repr=False)
class LongQueue:
    """A tenant with as many queued runs as an environment may have.

    One half waits for the first worker, and the other half for the pool of the others.
    """

    owner: Account
    pairs: list[Pair]
    last_runs: list[str]  # the ids of the last run of each half


def make_long_queue(stage: Stage, *, spent: bool = False) -> LongQueue:
    """Queue a run of each half by the API, and copy it in the database. The copies are due before it.

    With `spent`, no worker may take any of them, because a budget has no room.
    """
    with new_customer(stage.port) as customer:
        environment_id, key = customer.environment("production")
        pool_id = customer.post(f"/environments/{environment_id}/pools", name="Bench")["id"]
        pools = (None, *[pool_id] * _IN_POOL)
        pairs = [
            customer.pair(environment_id, key, f"host-{n}", _CAPACITY, pool_id=pool)
            for n, pool in enumerate(pools)
        ]
        last_runs = [
            str(customer.post(f"/triggers/{pair.trigger_id}/run")["id"]) for pair in pairs[:2]
        ]
        if spent:
            budget = {"name": "Spent", "period": "month", "limitUsd": 0}
            customer.post(f"/environments/{environment_id}/budgets", **budget)
    for run_id in last_runs:
        copy_row(
            stage.on, "run", run_id, _QUEUED // len(last_runs) - 1,
            id="gen_random_uuid()", available_at="available_at - n * interval '1 ms'",
        )  # fmt: skip
    return LongQueue(customer.account, pairs, last_runs)


class Queues(Flood):
    """No poll finds a run that its worker may take, and one that looks for it in the whole queue takes long."""

    name = "queues"
    what = (
        f"{_AT_ONCE} polls, claims and explanations at once, of {_QUEUED:,} runs whose budget is"
        " spent"
    )
    _queue: LongQueue

    def prepare(self, stage: Stage) -> None:
        self._queue = make_long_queue(stage, spent=True)

    async def attack(self, port: int, answers: Counter[str]) -> None:
        address, pairs = self._queue.owner.address, self._queue.pairs
        requests = [
            request("GET", f"/runs/{run_id}/explain", token=pairs[0].api_key, address=address)
            for run_id in self._queue.last_runs
        ]
        for pair in pairs:
            path, token = f"/workers/{pair.worker_id}", pair.worker_token
            body = {"claimId": "bench"}
            requests += [
                request("GET", f"{path}/poll", token=token, address=address),
                request("POST", f"{path}/claim-next", token=token, address=address, body=body),
            ]
        await ask_again_and_again(port, requests, answers, times=_AT_ONCE)
