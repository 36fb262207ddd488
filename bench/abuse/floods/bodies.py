"""A flood of request bodies that never end: chunks of two bytes each, up to almost the allowed size."""

import asyncio
import socket
from collections import Counter

from bench.abuse.flooding import PAUSE_SECONDS, Flood, Stage
from bench.abuse.tenants import random_address
from bench.http_client import BASE_PATH, HOST

_CONNECTIONS = 8
_BLOCK = b"2\r\n  \r\n" * 8192
_BLOCKS = 63  # of 16 KiB of body each: together a little less than 1 MiB


class Bodies(Flood):
    """Sends bodies in chunks of two bytes: a server that stores each chunk as it comes has half a million objects."""

    name = "bodies"
    what = f"{_CONNECTIONS} connections with bodies of 2-byte chunks that never end"

    def prepare(self, stage: Stage) -> None:
        """Do nothing: this flood needs no account, since the server reads a body before it checks credentials."""

    async def attack(self, port: int, answers: Counter[str]) -> None:
        await asyncio.gather(*(_send(port, answers) for _ in range(_CONNECTIONS)))


async def _send(port: int, answers: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket() as connection:
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, (HOST, port))
                sending = asyncio.create_task(_send_body(connection, answers))
                try:
                    answer = await loop.sock_recv(connection, 4096)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                answers[answer[9:12].decode() or "closed"] += 1
            except OSError:
                answers["closed"] += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def _send_body(connection: socket.socket, answers: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    head = (
        f"POST {BASE_PATH}/auth/login HTTP/1.1\r\nHost: {HOST}\r\n"
        f"X-Forwarded-For: {random_address()}\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    await loop.sock_sendall(connection, head.encode())
    for _ in range(_BLOCKS):
        await loop.sock_sendall(connection, _BLOCK)
    answers["bodies sent"] += 1
