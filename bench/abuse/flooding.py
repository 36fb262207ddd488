"""What all floods share: how one is set up, runs in a process of its own, and is told to stop."""

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

# Whoever is refused tries again after so long. Without a pause this would measure how fast refusals are.
PAUSE_SECONDS = 0.25
_REFUSALS = (429, 503)
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Stage:
    """What a flood is set up on; it is to last for `seconds`."""

    on: Database
    port: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a flood: how often it was answered how, and the CPU that its client took from the machine."""

    answers: dict[str, int]
    cpu_seconds: float


class Flood(ABC):
    """One way to burden the service, by callers who are allowed to do what they do."""

    name: str  # in the command line
    what: str  # in the table

    @abstractmethod
    def prepare(self, stage: Stage) -> None:
        """Make the tenant that floods, before anything is measured."""

    @abstractmethod
    async def attack(self, port: int, answers: Counter[str]) -> None:
        """Flood until cancelled, and count what comes of it."""

    def clear(self, on: Database) -> None:  # noqa: B027 - most floods leave nothing behind
        """Take back what would go on after the flood has stopped."""


def drive(flood: Flood, port: int, stop: Event) -> Sent:
    """Flood until told to stop, in a process of its own."""
    began = time.process_time()
    answers = Counter[str]()
    asyncio.run(_attack_until(stop, flood, port, answers))
    return Sent(dict(answers.most_common()), time.process_time() - began)


async def ask_again_and_again(
    port: int, requests: Iterable[bytes], answers: Counter[str], *, times: int
) -> None:
    """Have so many connections send one request after another, of those that are given in turn. Returns never."""
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
    while not stop.is_set():
        if attack.done():
            attack.result()
            raise BenchFailed(f"The flood {flood.name} ended by itself.")
        await asyncio.sleep(_LOOK_SECONDS)
    attack.cancel()
    await asyncio.gather(attack, return_exceptions=True)
