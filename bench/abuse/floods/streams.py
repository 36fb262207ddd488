"""A flood of event streams of one worker, which one key opens without end."""

import asyncio
from collections import Counter
from contextlib import ExitStack

from bench.abuse.flooding import PAUSE_SECONDS, Flood, Stage
from bench.abuse.tenants import new_customer
from bench.cast import Account, Pair
from bench.http_client import HOST, request

_AT_ONCE = 8
# As many streams as the process of the flood may keep open.
_MOST = 3_500


class Streams(Flood):
    """Each stream stays open, and asks the service about every twelve seconds whether its key still lives."""

    name = "streams"
    what = f"one key that opens event streams of a worker, {_AT_ONCE} at once and up to {_MOST:,} in all"
    _pair: Pair
    _account: Account
    _key: str

    def prepare(self, stage: Stage) -> None:
        with new_customer(stage.port) as customer:
            self._account = customer.account
            environment_id, key = customer.environment("production")
            self._pair = customer.pair(environment_id, key, "host")
            path = f"/environments/{environment_id}/api-keys"
            self._key = customer.post(path, name="bench", prefix="pwk", role="admin")["token"]

    async def attack(self, port: int, answers: Counter[str]) -> None:
        path = f"/workers/{self._pair.worker_id}/events/stream"
        sent = request("GET", path, token=self._key, address=self._account.address)
        with ExitStack() as opened:
            await asyncio.gather(*(_open(port, sent, answers, opened) for _ in range(_AT_ONCE)))


async def _open(port: int, sent: bytes, answers: Counter[str], opened: ExitStack) -> None:
    while True:
        if answers["200"] < _MOST:
            try:
                reader, writer = await asyncio.open_connection(HOST, port)
                opened.callback(writer.close)
                writer.write(sent)
                status = (await reader.readuntil(b"\r\n\r\n"))[9:12].decode()
            except (OSError, asyncio.IncompleteReadError):
                status = "closed"
            answers[status] += 1
            if status == "200":
                continue
        await asyncio.sleep(PAUSE_SECONDS)
