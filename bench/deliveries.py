"""`bin/bench deliveries`: measures how late webhooks to live hosts are while nine tenths of all are for dead hosts."""

import asyncio
import time
from collections.abc import Callable

from bench.background import scheduler_processes, wait_for_schedulers
from bench.failure import BenchFailed
from bench.figures import Json, latencies, machine, print_machine, print_table
from bench.http_client import body_length
from bench.stack import Database, database, free_port
from bench.usage import cpu_seconds
from testing.world.due_deliveries import DEAD_NETWORK, LIVE_NETWORK

# The last delivery to a live host has come by then after it was due, or the benchmark fails.
_LONGEST_AFTER = 90.0
_LOOK_SECONDS = 0.05
# Makes the deliveries to dead hosts due at once, and those to live hosts one after another.
_MAKE_DUE = """
UPDATE delivery d SET next_attempt_at = start.at
FROM (SELECT clock_timestamp() AS at) start WHERE host LIKE '{dead}.%';
UPDATE delivery d SET next_attempt_at = clock_timestamp() + (1 + n * {seconds}::float8 / {live}) * interval '1 second'
FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM delivery WHERE host LIKE '{live_network}.%') numbered
WHERE d.id = numbered.id
"""
_DUE = f"""
SELECT message_id, extract(epoch FROM next_attempt_at)::float8 AS due FROM delivery WHERE host LIKE '{LIVE_NETWORK}.%'
"""


def run(
    *,
    deliveries: int,
    hosts: int,
    seconds: float,
    schedulers: int,
    say: Callable[[str], None],
) -> Json:
    """Measure with so many deliveries, a tenth of them to live hosts, which come due within `seconds`. Raises
    BenchFailed.
    """
    live = deliveries // 10
    say("Starting PostgreSQL…")
    with database(WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8", LOG_LEVEL="WARNING") as on:
        found = machine(on.one("SHOW server_version")["server_version"])
        port = free_port()
        say(f"Making {deliveries} deliveries for {hosts} hosts…")
        made = (deliveries - live, live, hosts, port)
        on.python("-m", "testing.world.due_deliveries", *map(str, made))
        on.settle()
        with scheduler_processes(on, schedulers) as pids:
            wait_for_schedulers(on, schedulers)
            say(
                f"{deliveries - live} are due, of dead hosts; {live} others come due in {seconds:g} s…"
            )
            used = [cpu_seconds(pid) for pid in (*pids, on.pid)]
            lags = asyncio.run(_measure(on, port, hosts, live, seconds))
            *of_schedulers, of_postgres = (
                cpu_seconds(pid) - before for pid, before in zip((*pids, on.pid), used, strict=True)
            )
        tried = on.one(
            f"SELECT count(*) FROM delivery_attempt a JOIN delivery d ON d.id = a.delivery_id"
            f" WHERE d.host LIKE '{DEAD_NETWORK}.%'"
        )["count"]
    return {
        "benchmark": "deliveries",
        "machine": found,
        "deliveries": deliveries,
        "hosts": hosts,
        "seconds": seconds,
        "schedulers": schedulers,
        "lag": latencies(lags),
        "attemptsAtDeadHosts": tried,
        "schedulerCpuMs": 1000 * sum(of_schedulers) / live,
        "postgresCpuMs": 1000 * of_postgres / live,
    }


def show(result: Json) -> None:
    """Print the table of a result."""
    print_machine(result["machine"])
    print(
        f"{result['deliveries']} deliveries, nine tenths of them for {result['hosts'] * 9 // 10} dead hosts;"
        f" {result['schedulers']} scheduler processes"
    )
    print()
    lag = result["lag"]
    print_table(
        ["to live hosts, from the due time to the request", "count", "p50 ms", "p99 ms"],
        [[f"due within {result['seconds']:g} s", lag["count"], lag["p50Ms"], lag["p99Ms"]]],
    )
    print(
        f"Attempts at dead hosts meanwhile: {result['attemptsAtDeadHosts']}. CPU for each delivery to a live host:"
        f" schedulers {result['schedulerCpuMs']:.3g} ms, PostgreSQL {result['postgresCpuMs']:.3g} ms"
    )


async def _measure(on: Database, port: int, hosts: int, live: int, seconds: float) -> list[float]:
    """Receive the deliveries, and return how late each of those to live hosts was."""
    received: dict[str, float] = {}

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        now = time.time()
        await reader.readexactly(body_length(head))
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        id_ = next(value for name, value in fields.items() if name.lower() == "webhook-id")
        received.setdefault(id_, now)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    of_dead = hosts * 9 // 10
    dead_hosts = [f"{DEAD_NETWORK}.{n + 1}" for n in range(of_dead)]
    live_hosts = [f"{LIVE_NETWORK}.{n + 1}" for n in range(hosts - of_dead)]
    async with (
        await asyncio.start_server(never, dead_hosts, port, backlog=1000),
        await asyncio.start_server(answer, live_hosts, port, backlog=1000),
    ):
        statement = _MAKE_DUE.format(
            dead=DEAD_NETWORK, live_network=LIVE_NETWORK, live=live, seconds=seconds
        )
        await asyncio.to_thread(on.execute, statement)
        # The machine's clock is also the database's.
        due = {row["message_id"]: row["due"] for row in await asyncio.to_thread(on.all, _DUE)}
        until = time.time() + seconds + _LONGEST_AFTER
        while len(received) < len(due) and time.time() < until:
            await asyncio.sleep(_LOOK_SECONDS)
    if len(received) < len(due):
        raise BenchFailed(f"Only {len(received)} of {len(due)} deliveries to live hosts have come.")
    return [received[id_] - at for id_, at in due.items()]
