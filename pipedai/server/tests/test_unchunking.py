"""Chunked bodies are parsed in small pieces, and connections take turns."""

import asyncio
import time
from collections import Counter

import pytest

from pipedai.server.worker import TURN_SECONDS, Body, Unchunking

pytestmark = pytest.mark.anyio


class Connection:
    """A connection with a number of pieces to parse, each of which takes a given time."""

    def __init__(self, pieces, seconds=0.0):
        self.pieces = pieces
        self.seconds = seconds
        self.parsed = 0

    def parse_some(self):
        time.sleep(self.seconds)
        self.parsed += 1
        return self.parsed < self.pieces


async def until_parsed(*connections):
    async with asyncio.timeout(60):
        while any(each.parsed < each.pieces for each in connections):
            await asyncio.sleep(0)


async def test_each_is_parsed_to_its_end():
    unchunking = Unchunking(asyncio.get_running_loop())
    connections = [Connection(n) for n in (1, 5, 2)]
    for _ in range(2):
        for connection in connections:
            connection.parsed = 0
            unchunking.add(connection.parse_some)
        await until_parsed(*connections)
    assert [each.parsed for each in connections] == [1, 5, 2]


async def test_one_that_has_much_does_not_keep_the_others_waiting():
    unchunking = Unchunking(asyncio.get_running_loop())
    much, little = Connection(1000, TURN_SECONDS), Connection(1)
    unchunking.add(much.parse_some)
    unchunking.add(little.parse_some)
    await until_parsed(little)
    assert much.parsed < 10
    much.pieces = 0


async def test_however_many_there_are_the_loop_goes_on():
    unchunking = Unchunking(asyncio.get_running_loop())
    connections = [Connection(20, TURN_SECONDS / 2) for _ in range(50)]
    for connection in connections:
        unchunking.add(connection.parse_some)
    turns: Counter[int] = Counter()
    while sum(each.parsed for each in connections) < 100:
        before = sum(each.parsed for each in connections)
        await asyncio.sleep(0)
        turns[sum(each.parsed for each in connections) - before] += 1
    assert max(turns) <= 3
    for connection in connections:
        connection.pieces = 0


async def test_one_that_fails_does_not_stop_the_others():
    class Failing(Connection):
        def parse_some(self):
            raise RuntimeError("told you")

    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    unchunking = Unchunking(asyncio.get_running_loop())
    sound = Connection(3)
    unchunking.add(Failing(1).parse_some)
    unchunking.add(sound.parse_some)
    await until_parsed(sound)
    assert len(told) == 1


async def test_chunks_that_nobody_has_asked_for_yet_are_one_piece():
    class Connected:
        _closed = False

        def _maybe_resume_reading(self):
            pass

    class Asked:
        content_length, chunked = 0, True

    body = Body(Asked(), Connected())
    for _ in range(1000):
        body.feed(b"xy")
    assert body.buffered == 2000
    assert await body.receive() == {"type": "http.request", "body": b"xy" * 1000, "more_body": True}
    assert body.buffered == 0
    body.feed(b"z")
    body.set_complete()
    assert await body.receive() == {"type": "http.request", "body": b"z", "more_body": False}
