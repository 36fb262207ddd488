"""Turns: so many at once, each group as often as any other, and none is lost (SPEC §19)."""

import asyncio
from collections.abc import Hashable

import pytest

from pipedai.server.turns import Turns

pytestmark = pytest.mark.anyio


class Line:
    """Those who have had a turn, in the order of their turns. Each keeps it until told to go."""

    def __init__(self, turns: Turns) -> None:
        self.had: list[str] = []
        self._turns = turns
        self._go: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, *names: str) -> None:
        """A name's group is its first letter."""
        for name in names:
            self._go[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._take(name[0], name))
        await _settled()

    async def end(self, name: str) -> None:
        self._go[name].set()
        await _settled()

    async def leave(self, name: str) -> None:
        self._tasks[name].cancel()
        await _settled()

    async def end_all(self) -> None:
        """Each in the order of their turns."""
        done = 0
        while done < len(self.had):
            await self.end(self.had[done])
            done += 1

    async def _take(self, group: Hashable, name: str) -> None:
        async with self._turns.turn(group):
            self.had.append(name)
            await self._go[name].wait()


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_have_a_turn_at_once() -> None:
    line = Line(Turns(2))
    await line.join("a1", "a2", "a3")
    assert line.had == ["a1", "a2"]
    await line.end("a2")
    assert line.had == ["a1", "a2", "a3"]


async def test_groups_take_turns_and_each_keeps_its_own_order() -> None:
    line = Line(Turns(1))
    await line.join("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    await line.end_all()
    assert line.had == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_a_group_that_comes_late_waits_for_one_turn_of_each() -> None:
    line = Line(Turns(1))
    await line.join("a1", "a2", "a3", "b1", "b2")
    await line.end("a1")
    await line.join("c1")
    await line.end_all()
    assert line.had.index("c1") <= 4


async def test_who_leaves_the_line_takes_no_turn() -> None:
    line = Line(Turns(1))
    await line.join("a1", "a2", "b1", "b2")
    await line.leave("a2")
    await line.leave("b1")
    await line.end_all()
    assert line.had == ["a1", "b2"]


async def test_who_leaves_with_a_turn_or_just_given_one_passes_it_on() -> None:
    turns = Turns(1)
    line = Line(turns)
    await line.join("a1", "a2", "a3")
    # In the same moment: a2 is given the turn, and leaves before it knows.
    line._go["a1"].set()
    await asyncio.sleep(0)
    line._tasks["a2"].cancel()
    await _settled()
    assert line.had[-1] == "a3"
    await line.leave("a3")
    await line.join("b1")
    assert line.had[-1] == "b1"
    await line.end("b1")
    assert turns._free == 1
    assert not turns._waiting
