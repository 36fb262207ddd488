"""Counts what keeps an environment from being deleted: other apps register how to count what they have in it."""

from collections.abc import Callable
from uuid import UUID

_counts: dict[str, Callable[[UUID], int]] = {}


def register_dependents(name: str, count: Callable[[UUID], int]) -> None:
    """Registers `count(environment_id)`, which counts the rows called `name` (a singular). Call it in `ready()`."""
    _counts[name] = count


def dependents_of(environment_id: UUID) -> dict[str, int]:
    """Returns, by name, how many rows of each kind the environment has, without those that it has none of."""
    found = {name: count(environment_id) for name, count in _counts.items()}
    return {name: number for name, number in found.items() if number}
