"""Counts calls for a throttle without making them, and checks that only one request is under way at a time."""

from collections.abc import Callable, Collection
from typing import Any

from pipedai.api import throttling
from pipedai.api.throttling import Rate
from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget
from pipedai.sql import execute


def count_more(rate: Rate, key: str, calls: int) -> None:
    """Adds so many calls to those that the rate has counted for this key, of which there must be one."""
    more = {"bucket": throttling._bucket(rate, key), "calls": calls}
    counted = execute("UPDATE throttle SET hits = hits + %(calls)s WHERE bucket = %(bucket)s", more)
    assert counted == 1, f"{rate.name} has counted nothing for {key}"


def check_one_at_a_time(ask: Callable[..., Any], *, then: Collection[int] = (200,)) -> None:
    """Checks that a second request gets 429 while the first one's answer is being sent, and one of the statuses `then`
    afterwards. `ask` makes the request with the extra arguments that it gets, and returns the answer.
    """
    budget = MemoryBudget()
    first, second = Holding(budget, "192.0.2.1"), Holding(budget, "192.0.2.2")

    def ask_with(under_way: Holding) -> Any:
        return ask(**{"asgi.scope": {HOLDING: under_way}})

    assert ask_with(first).status_code == 200  # its answer has not been sent yet
    refused = ask_with(second)
    assert (refused.status_code, refused["Retry-After"]) == (429, "1")
    assert refused.json()["code"] == "throttled"
    first.leave()
    assert ask_with(second).status_code in then
    second.leave()
