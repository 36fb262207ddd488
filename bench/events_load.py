"""The loads of the events benchmark: workers that tell what their runs do, and readers of the streams of these runs."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event

from bench.async_client import AsyncConnection
from bench.cast import Pair
from bench.failure import BenchFailed
from bench.http_client import HOST, check, request
from bench.load import Window

# What an event tells. With its number and its time, an event has about 250 bytes.
_TEXT = "I look at the tickets of the night, and name the three that need an answer first. " * 2
_AT = "2026-11-26T12:00:00.000Z"
_OPENED_TOGETHER = 50
_LAST_EVENTS_SECONDS = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class Told:
    """A run whose worker tells events, and the key by which its stream is read."""

    pair: Pair
    run_id: str


@dataclass(slots=True)
class Sent:
    """When the call of each event began and how long each call took, by time.monotonic()."""

    # For each run, the times of its events in order. The first event has the number 1.
    began: list[list[float]] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)


def tell(port: int, told: Sequence[Told], window: Window, rate: int, every: float) -> Sent:
    """Let each run's worker send `rate` events a second, in a call every `every` seconds, until the window ends."""
    return asyncio.run(_tell_all(port, told, window, rate, every))


async def _tell_all(
    port: int, told: Sequence[Told], window: Window, rate: int, every: float
) -> Sent:
    sent = Sent(began=[[] for _ in told])
    # The workers of a real fleet don't call at the same moments either.
    waits = [every * place / len(told) for place in range(len(told))]
    await asyncio.gather(
        *(
            _tell(port, each, window, max(1, round(rate * every)), every, wait, times, sent.calls)
            for each, wait, times in zip(told, waits, sent.began, strict=True)
        )
    )
    return sent


async def _tell(
    port: int,
    told: Told,
    window: Window,
    count: int,
    every: float,
    wait: float,
    times: list[float],
    calls: list[float],
) -> None:
    connection = await AsyncConnection.open(port)
    path = f"/workers/{told.pair.worker_id}/runs/{told.run_id}/events"
    due = window.start + wait
    while due < window.end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        first = len(times) + 1
        events = [
            {"seq": seq, "at": _AT, "type": "text", "text": _TEXT}
            for seq in range(first, first + count)
        ]
        call = request("POST", path, token=told.pair.worker_token, body={"events": events})
        began = time.monotonic()
        answer = check(call, await connection.exchange(call)).json()
        calls.append(time.monotonic() - began)
        times += [began] * count
        if answer != {"nextSeq": first + count}:
            raise BenchFailed(f"The service wants event {answer}, not {first + count}.")
        due += every
    connection.close()


@dataclass(frozen=True, slots=True, repr=False)
class Stream:
    """A stream to open: its path, and the token of the reader."""

    path: str
    token: str


def read(
    port: int, streams: Sequence[Stream], ready: Event, stop: Event, counts: Sequence[int]
) -> list[list[tuple[int, float]]]:
    """Open the streams, and set `ready` when each has begun. Once `stop` is set, read each until it has its count.

    Return for each stream the numbers of the events that came, each with its time by time.monotonic().
    """
    return asyncio.run(_read_all(port, streams, ready, stop, counts))


async def _read_all(
    port: int, streams: Sequence[Stream], ready: Event, stop: Event, counts: Sequence[int]
) -> list[list[tuple[int, float]]]:
    came: list[list[tuple[int, float]]] = [[] for _ in streams]
    tasks = []
    for start in range(0, len(streams), _OPENED_TOGETHER):
        group = range(start, min(start + _OPENED_TOGETHER, len(streams)))
        begun = [asyncio.Event() for _ in group]
        tasks += [
            asyncio.create_task(_read(port, streams[n], came[n], one))
            for n, one in zip(group, begun, strict=True)
        ]
        async with asyncio.timeout(_LAST_EVENTS_SECONDS):
            await asyncio.gather(*(one.wait() for one in begun))
    ready.set()
    while not stop.is_set():
        await asyncio.sleep(0.1)
        _raise_failure(tasks)
    deadline = time.monotonic() + _LAST_EVENTS_SECONDS
    while time.monotonic() < deadline and any(
        len(one) < count for one, count in zip(came, counts, strict=True)
    ):
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    return came


def _raise_failure(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        if task.done():
            task.result()
            raise BenchFailed("A stream ended although its run had not.")


async def _read(
    port: int, stream: Stream, came: list[tuple[int, float]], begun: asyncio.Event
) -> None:
    reader, writer = await asyncio.open_connection(HOST, port, limit=2**24)
    try:
        writer.write(request("GET", stream.path, token=stream.token))
        head = await reader.readuntil(b"\r\n\r\n")
        if head[9:12] != b"200":
            raise BenchFailed(f"A stream answered {head[:80]!r}.")
        while line := await reader.readline():
            begun.set()
            if line.startswith(b"id: "):
                came.append((int(line[4:]), time.monotonic()))
    finally:
        writer.close()
