"""A client must take at least 1 KiB/s of its answer, averaged over 30 s with something to take."""

import asyncio
import os
from typing import Any

import pytest

from pipedai.server.worker import LEAST_BYTES_PER_SECOND, STALL_SECONDS, Pace

LEAST = int(LEAST_BYTES_PER_SECOND * STALL_SECONDS)


class Loop:
    """An event loop whose clock the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, then: Any) -> Any:
        timer = (self.now + delay, then)
        self._timers.append(timer)

        class Handle:
            @staticmethod
            def cancel() -> None:
                if timer in self._timers:
                    self._timers.remove(timer)

        return Handle

    def pass_to(self, moment: float) -> None:
        while due := [timer for timer in self._timers if timer[0] <= moment]:
            timer = min(due, key=lambda each: each[0])
            self._timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = moment


class Transport:
    """A transport that holds `buffered` bytes. It has no real socket, so the operating system reports no others."""

    def __init__(self) -> None:
        self.buffered = 0
        self.aborted = False
        self._file = os.open(os.devnull, os.O_RDONLY)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, _name: str) -> Any:
        transport = self

        class Socket:
            @staticmethod
            def fileno() -> int:
                return transport._file

        return Socket

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def transport():
    return Transport()


@pytest.fixture
def pace(loop, transport):
    return Pace(loop, transport)


def test_who_takes_less_is_left_after_thirty_seconds(loop, transport, pace):
    transport.buffered = 1_000_000
    pace.stalled()
    for second in range(1, 30):
        transport.buffered -= 1000
        loop.pass_to(second)
        assert not transport.aborted
    loop.pass_to(30)
    assert transport.aborted


def test_who_takes_so_much_may_take_as_long_as_it_likes(loop, transport, pace):
    transport.buffered = 1_000_000
    pace.stalled()
    for second in range(1, 600):
        transport.buffered -= LEAST_BYTES_PER_SECOND
        loop.pass_to(second)
    assert not transport.aborted


def test_the_end_of_an_answer_may_not_be_left_lying_either(loop, transport, pace):
    transport.buffered = 10
    pace.stalled()
    loop.pass_to(30)
    assert transport.aborted


def test_only_time_with_something_to_take_counts(loop, transport, pace):
    """An idle event stream, or a connection that is kept open, has long times in between."""
    for hour in range(1, 20):
        transport.buffered = 100
        pace.stalled()
        loop.pass_to(loop.now + 1)
        transport.buffered = 0
        pace.emptied()
        loop.pass_to(3600 * hour)
    assert not transport.aborted


def test_an_answer_in_pieces_is_judged_as_a_whole(loop, transport, pace):
    while not transport.aborted and loop.now < 100:
        transport.buffered = 500
        pace.stalled()
        loop.pass_to(loop.now + 0.9)
        transport.buffered = 0
        pace.emptied()
    assert 30 <= loop.now < 31


def test_it_counts_what_the_system_holds_for_the_client(loop):
    """The operating system buffers some hundred kilobytes, and accepts more only when a third of them has left."""

    async def scenario():
        server_side, client_side, client = await _connected()
        transport = server_side.transport
        transport.set_write_buffer_limits(high=0)
        transport.write(b"x" * 20_000_000)
        buffered = transport.get_write_buffer_size()
        pace = Pace(loop, transport)
        assert 0 < buffered < pace._to_take()
        before = pace._to_take()
        async with asyncio.timeout(60):
            while pace._to_take() == before:
                assert await client_side.read(10_000)
                await asyncio.sleep(0)
        transport.abort()
        client.close()

    asyncio.run(scenario())


async def _connected() -> tuple[Any, Any, Any]:
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), "127.0.0.1")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    server.close()
    return await accepted, reader, writer
