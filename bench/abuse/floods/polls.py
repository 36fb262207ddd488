"""A flood of polls with large answers, on connections that read nothing of them, or one byte a second."""

import asyncio
import socket
from collections import Counter

from bench.abuse.flooding import PAUSE_SECONDS, Flood, Stage
from bench.abuse.tenants import new_customer
from bench.cast import Account, Pair
from bench.http_client import HOST, Connection, request

_WORKERS = 4
_CONNECTIONS = 16
_RUNS = 50
_PROMPT_BYTES = 256 * 1024
# The size of a connection's buffer: so small that most of the answer stays in the server's memory.
_BUFFER_BYTES = 4096
_STATUS_LINE = 12


class Polls(Flood):
    """Each answer holds as many queued runs with their prompts as the service hands out at once."""

    name = "polls"
    what = (
        f"{_CONNECTIONS} polls for {_RUNS} prompts of 256 KiB that nobody reads, or a byte a second"
    )
    _pairs: list[Pair]
    _account: Account

    def prepare(self, stage: Stage) -> None:
        with new_customer(stage.port) as customer:
            self._account = customer.account
            environment_id, key = customer.environment("production")
            self._pairs = [
                customer.pair(
                    environment_id, key, f"host-{n}", _RUNS, prompt="Work. " * (_PROMPT_BYTES // 6)
                )
                for n in range(_WORKERS)
            ]
        with Connection(stage.port) as connection:
            for pair in self._pairs:
                for _ in range(_RUNS):
                    connection.call("POST", f"/triggers/{pair.trigger_id}/run", token=key)

    async def attack(self, port: int, answers: Counter[str]) -> None:
        await asyncio.gather(
            *(
                self._poll(port, self._pairs[n % _WORKERS], n % 2, answers)
                for n in range(_CONNECTIONS)
            )
        )

    async def _poll(self, port: int, pair: Pair, trickle: int, answers: Counter[str]) -> None:
        path = f"/workers/{pair.worker_id}/poll"
        sent = request("GET", path, token=pair.worker_token, address=self._account.address)
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as connection:
                connection.setblocking(False)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
                try:
                    await loop.sock_connect(connection, (HOST, port))
                    await loop.sock_sendall(connection, sent)
                    status = await _status(connection)
                    answers[status] += 1
                    if status == "200":
                        await _read_next_to_nothing(connection, trickle)
                        answers["ended by the server"] += 1
                except OSError:
                    answers["closed"] += 1
            await asyncio.sleep(PAUSE_SECONDS)


async def _status(connection: socket.socket) -> str:
    """Return the answer's status without taking anything from the connection."""
    while True:
        await asyncio.sleep(0.1)
        try:
            seen = connection.recv(_STATUS_LINE, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if len(seen) in (0, _STATUS_LINE):
            return seen[9:].decode() or "closed"


async def _read_next_to_nothing(connection: socket.socket, trickle: int) -> None:
    """Return once the server has ended the connection."""
    try:
        while connection.recv(1, 0 if trickle else socket.MSG_PEEK):
            await asyncio.sleep(1)
    except BlockingIOError:
        return  # the answer was small and has been read completely
    except ConnectionError:
        return
