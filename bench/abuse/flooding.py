"""The base of all floods: how one is prepared, runs in a process of its own, and stops."""

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Event

from bench.async_client import AsyncConnection
from bench.failure import BenchFailed
from bench.http_client import Answer
from bench.stack import Database

# How many seconds a client waits after a refusal. Without a pause this would measure how fast refusals are.
PAUSE_SECONDS = 0.25
_REFUSALS = (415, 429, 503)
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Stage:
    """The database and port that a flood is prepared for, and how long it will last, in seconds."""

    on: Database
    port: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of a flood: how often each kind of answer came, and the CPU seconds that its client used."""

    answers: dict[str, int]
    cpu_seconds: float


class Flood(ABC):
    """One way to burden the service, by calls that are allowed."""

    name: str  # its name on the command line
    what: str  # its description in the table of results

    @abstractmethod
    def prepare(self, stage: Stage) -> None:
        """Make the tenant that floods. It is called before anything is measured."""

    @abstractmethod
    async def attack(self, port: int, answers: Counter[str]) -> None:
        """Flood until cancelled, and count the answers."""

    def clear(self, on: Database) -> None:  # noqa: B027 - most floods leave nothing behind
        """Undo what would burden the service after the flood has stopped."""


def drive(flood: Flood, port: int, stop: Event) -> Sent:
    """Flood until `stop` is set and something has come of it. It runs in a process of its own."""
    began = time.process_time()
    answers = Counter[str]()
    asyncio.run(_attack_until(stop, flood, port, answers))
    return Sent(dict(answers.most_common()), time.process_time() - began)


async def ask_again_and_again(
    port: int, requests: Iterable[bytes], answers: Counter[str], *, times: int
) -> None:
    """Send the requests in turn, one after another on each of `times` connections. Never returns."""
    endless = itertools.cycle(requests) if isinstance(requests, list | tuple) else iter(requests)
    await asyncio.gather(*(_ask(port, endless, answers) for _ in range(times)))


async def _ask(port: int, requests: Iterator[bytes], answers: Counter[str]) -> None:
    while True:
        try:
            connection = await AsyncConnection.open(port)
            try:
                for sent in requests:
                    await _count(await connection.exchange(sent), answers)
            finally:
                connection.close()
        except (OSError, BenchFailed):
            answers["closed"] += 1
            await asyncio.sleep(PAUSE_SECONDS)


async def _count(answer: Answer, answers: Counter[str]) -> None:
    answers[str(answer.status)] += 1
    if answer.status in _REFUSALS:
        await asyncio.sleep(PAUSE_SECONDS)


async def _attack_until(stop: Event, flood: Flood, port: int, answers: Counter[str]) -> None:
    attack = asyncio.create_task(flood.attack(port, answers))
    while not (stop.is_set() and answers):
        if attack.done():
            attack.result()
            raise BenchFailed(f"The flood {flood.name} ended by itself.")
        await asyncio.sleep(_LOOK_SECONDS)
    attack.cancel()
    await asyncio.gather(attack, return_exceptions=True)
