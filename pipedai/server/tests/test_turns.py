"""Permits are handed out fairly between groups, few enough turns wait, and no turn waits for ever."""

import asyncio
import threading
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipedai.server.turns import Turn, Turns


def ask(turns: Turns, group: str, permits: int) -> Turn:
    return turns.ask(group, permits, wake=lambda _: None)


def granted(turns):
    return [turn.granted for turn in turns]


def test_as_many_are_granted_as_there_are_permits():
    turns = Turns(2)
    asked = [ask(turns, "a", 1) for _ in range(3)]
    assert granted(asked) == [True, True, False]
    turns.leave(asked[0])
    assert granted(asked) == [False, True, True]
    assert turns.free == 0


def test_those_of_one_group_come_in_their_order():
    turns = Turns(1)
    held, *waiting = [ask(turns, "a", 1) for _ in range(5)]
    for turn in waiting:
        turns.leave(held)
        assert turn.granted
        held = turn


def test_groups_take_turns_however_many_one_of_them_has_waiting():
    turns = Turns(1)
    held = ask(turns, "many", 1)
    many = [ask(turns, "many", 1) for _ in range(50)]
    few = {name: ask(turns, name, 1) for name in ("b", "c")}
    order = []
    waiting = {id(turn): "many" for turn in many} | {id(t): name for name, t in few.items()}
    everybody = [*many, *few.values()]
    for _ in range(6):
        turns.leave(held)
        (held,) = [turn for turn in everybody if turn.granted]
        order.append(waiting[id(held)])
    assert order == ["many", "b", "c", "many", "many", "many"]


def test_a_group_that_comes_back_waits_behind_the_others():
    turns = Turns(1)
    held = ask(turns, "a", 1)
    other, again = ask(turns, "b", 1), ask(turns, "a", 1)
    turns.leave(held)
    assert granted([other, again]) == [True, False]


def test_who_needs_two_permits_is_not_overtaken_by_those_who_need_one():
    turns = Turns(2)
    first, second = ask(turns, "a", 1), ask(turns, "b", 1)
    large, small = ask(turns, "c", 2), ask(turns, "d", 1)
    turns.leave(first)
    assert granted([large, small]) == [False, False]
    turns.leave(second)
    assert granted([large, small]) == [True, False]
    turns.leave(large)
    assert small.granted
    assert turns.free == 1


def test_who_needs_more_permits_than_there_are_gets_them_all():
    turns = Turns(1)
    large = ask(turns, "a", 2)
    assert large.granted
    turns.leave(large)
    assert turns.free == 1


def test_who_leaves_while_waiting_gives_its_place_in_the_queue_back():
    turns = Turns(1)
    held, gone, next_one = (ask(turns, name, 1) for name in "abc")
    turns.leave(gone)
    turns.leave(held)
    assert next_one.granted
    assert turns.waiting == 0


def test_the_large_one_that_leaves_lets_those_behind_it_pass():
    turns = Turns(2)
    ask(turns, "a", 1)
    large, small = ask(turns, "b", 2), ask(turns, "c", 1)
    assert not small.granted
    turns.leave(large)
    assert small.granted


def test_leaving_twice_gives_nothing_back_twice():
    turns = Turns(1)
    turn = ask(turns, "a", 1)
    turns.leave(turn)
    turns.leave(turn)
    assert turns.free == 1


def test_a_group_has_only_so_many_waiting_turns():
    turns = Turns(1, most_of_a_group=2)
    asked = [ask(turns, "a", 1) for _ in range(5)]
    assert [turn.refused for turn in asked] == [False, False, False, True, True]
    assert not ask(turns, "b", 1).refused


def test_a_full_queue_makes_room_at_the_cost_of_whoever_has_most_waiting():
    turns = Turns(1, most_waiting=4)
    ask(turns, "a", 1)
    many = [ask(turns, "a", 1) for _ in range(4)]
    other = ask(turns, "b", 1)
    assert [turn.refused for turn in many] == [False, False, False, True]
    assert not other.refused
    assert turns.waiting == 4
    assert ask(turns, "a", 1).refused
    assert turns.waiting == 4


def test_one_group_holds_only_so_many_permits_though_more_are_free():
    turns = Turns(4, most_held=3)
    many = [ask(turns, "a", 1) for _ in range(9)]
    assert granted(many) == [True] * 3 + [False] * 6
    other, another = ask(turns, "b", 1), ask(turns, "b", 1)
    assert granted([other, another]) == [True, False]
    turns.leave(many[0])
    assert granted([many[3], another]) == [True, False]
    turns.leave(many[1])
    assert another.granted


def test_threads_that_ask_and_leave_all_get_their_turns():
    turns, left = Turns(3, most_held=2), threading.Semaphore(0)
    pool = ThreadPoolExecutor(3)

    def work(turn):
        turns.leave(turn)
        left.release()

    for number in range(2000):
        turns.ask(number % 7, 1, wake=lambda turn: pool.submit(work, turn))
    for _ in range(2000):
        assert left.acquire(timeout=60)
    pool.shutdown()
    assert (turns.free, turns.waiting) == (3, 0)
    assert not turns._held


# --- One permit each, for the length of a block


class Line:
    """Records the order in which requests get their turns. Each keeps its turn until the test ends it."""

    def __init__(self, turns: Turns) -> None:
        self.had: list[str] = []
        self._turns = turns
        self._go: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, *names: str) -> None:
        """Lets requests with these names ask for a turn. The group of each is the first letter of its name."""
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
        """Ends all turns, in the order in which they were granted."""
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


@pytest.mark.anyio
async def test_so_many_have_a_turn_at_once() -> None:
    line = Line(Turns(2))
    await line.join("a1", "a2", "a3")
    assert line.had == ["a1", "a2"]
    await line.end("a2")
    assert line.had == ["a1", "a2", "a3"]


@pytest.mark.anyio
async def test_groups_take_turns_and_each_keeps_its_own_order() -> None:
    line = Line(Turns(1))
    await line.join("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    await line.end_all()
    assert line.had == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


@pytest.mark.anyio
async def test_a_group_that_comes_late_waits_for_one_turn_of_each() -> None:
    line = Line(Turns(1))
    await line.join("a1", "a2", "a3", "b1", "b2")
    await line.end("a1")
    await line.join("c1")
    await line.end_all()
    assert line.had.index("c1") <= 4


@pytest.mark.anyio
async def test_who_leaves_the_line_takes_no_turn() -> None:
    line = Line(Turns(1))
    await line.join("a1", "a2", "b1", "b2")
    await line.leave("a2")
    await line.leave("b1")
    await line.end_all()
    assert line.had == ["a1", "b2"]


@pytest.mark.anyio
async def test_who_leaves_with_a_turn_or_just_given_one_passes_it_on() -> None:
    turns = Turns(1)
    line = Line(turns)
    await line.join("a1", "a2", "a3")
    # a2 is granted its turn and leaves at the same moment, before it notices.
    line._go["a1"].set()
    await asyncio.sleep(0)
    line._tasks["a2"].cancel()
    await _settled()
    assert line.had[-1] == "a3"
    await line.leave("a3")
    await line.join("b1")
    assert line.had[-1] == "b1"
    await line.end("b1")
    assert (turns.free, turns.waiting) == (1, 0)
