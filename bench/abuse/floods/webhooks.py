"""A flood of a thousand webhooks that are due at once, to receivers that answer slowly."""

import asyncio
import itertools
from collections import Counter

from bench.abuse.copies import copy_row
from bench.abuse.flooding import Flood, Stage
from bench.abuse.tenants import NEVER, new_customer
from bench.stack import Database, free_port

_ENVIRONMENTS = 10
_DELIVERIES = 100  # in each environment
# Addresses of the loopback interface, each of which counts as a host of its own.
_HOSTS = [f"127.0.1.{n}" for n in range(1, 41)]
_SLOW_SECONDS = 9.0


class Webhooks(Flood):
    """The receivers answer every second delivery after nine seconds, and the others never."""

    name = "webhooks"
    what = f"{_ENVIRONMENTS * _DELIVERIES:,} due webhooks to receivers that take 9 s, or for ever"
    _on: Database
    _environments: str
    _port: int

    def prepare(self, stage: Stage) -> None:
        self._on, self._port = stage.on, free_port()
        ids = []
        with new_customer(stage.port) as customer:
            for n in range(_ENVIRONMENTS):
                environment_id, key = customer.environment(f"environment-{n}")
                hook = f"http://{_HOSTS[0]}:{self._port}/"
                pair = customer.pair(environment_id, key, "host", webhookUrl=hook)
                tested = customer.post(f"/triggers/{pair.trigger_id}/test-webhook")
                self._copy(tested["id"])
                ids.append(environment_id)
        self._environments = ",".join(ids)

    async def attack(self, port: int, answers: Counter[str]) -> None:
        turns = itertools.count()

        async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answers["held"] += 1
            try:
                await reader.readuntil(b"\r\n\r\n")
                if next(turns) % 2:
                    await asyncio.sleep(_SLOW_SECONDS)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    answers["answered"] += 1
                else:
                    await reader.read()
            except (OSError, asyncio.IncompleteReadError):
                answers["given up"] += 1
            except asyncio.CancelledError:
                pass  # the flood is over: asyncio would log the cancellation of its server's tasks
            finally:
                writer.close()

        async with await asyncio.start_server(receive, _HOSTS, self._port) as server:
            self._on.execute(
                "UPDATE delivery SET next_attempt_at = statement_timestamp()"
                f" WHERE status = 'pending' AND {self._ours()}"
            )
            await server.serve_forever()

    def clear(self, on: Database) -> None:
        on.execute(
            "UPDATE delivery SET status = 'dead', next_attempt_at = NULL"
            f" WHERE status = 'pending' AND {self._ours()}"
        )

    def _ours(self) -> str:
        return f"environment_id = ANY('{{{self._environments}}}')"

    def _copy(self, delivery_id: str) -> None:
        hosts = ",".join(_HOSTS)
        host = f"(string_to_array('{hosts}', ','))[1 + n % {len(_HOSTS)}]"
        copy_row(
            self._on, "delivery", delivery_id, _DELIVERIES,
            id="gen_random_uuid()",
            message_id="'msg_' || gen_random_uuid()",
            host=host,
            url=f"'http://' || {host} || ':{self._port}/'",
            status="'pending'",
            next_attempt_at=f"timestamptz '{NEVER}'",
            attempt_count="0",
            delivered_at="NULL::timestamptz",
        )  # fmt: skip
