"""Floods of events at the service's public hooks, signed and not."""

import itertools
from collections import Counter

from bench.abuse.flooding import Flood, Stage, ask_again_and_again
from bench.abuse.tenants import new_customer, random_address
from bench.event_calls import Source, make_source
from bench.http_client import request

_AT_ONCE = 16


class Events(Flood):
    """Each signed event queues a run, until the source's rate is used up."""

    name = "events"
    what = f"{_AT_ONCE} signed events at once, of one source to which a trigger listens"
    _source: Source

    def prepare(self, stage: Stage) -> None:
        with new_customer(stage.port) as customer:
            environment_id, key = customer.environment("production")
            self._source = make_source(customer, environment_id)
            on = [{"sourceId": self._source.id}]
            customer.pair(environment_id, key, "host", on=on)

    async def attack(self, port: int, answers: Counter[str]) -> None:
        requests = self._source.requests(random_address())
        await ask_again_and_again(port, requests, answers, times=_AT_ONCE)


class Unsigned(Flood):
    """Nobody can use up the rate of a source without its secret, whoever knows its id."""

    name = "unsigned"
    what = (
        f"{_AT_ONCE} unsigned requests at once to the neighbour's own source, and as many to none"
    )
    _source: Source

    def prepare(self, stage: Stage) -> None:
        oldest = "SELECT id::text FROM event_source ORDER BY created_at LIMIT 1"
        self._source = Source(stage.on.one(oldest)["id"])

    async def attack(self, port: int, answers: Counter[str]) -> None:
        address = random_address()
        nowhere = request(
            "POST", "/hooks/01a20e61-c6d1-7c07-b3a9-5f0e8d2c4b11", address=address, body={}
        )
        unsigned = self._source.requests(address, secret="another-secret")
        pairs = zip(unsigned, itertools.repeat(nowhere), strict=False)
        requests = itertools.chain.from_iterable(pairs)
        await ask_again_and_again(port, requests, answers, times=2 * _AT_ONCE)
