"""Counts the rows, such as triggers, that keep an environment from being deleted. Other apps register how to count
theirs.
"""

from collections.abc import Callable
from uuid import UUID

_counts: dict[str, Callable[[UUID], int]] = {}


def register_dependents(name: str, count: Callable[[UUID], int]) -> None:
    """Registers `count(environment_id)`, which returns how many rows of a kind the environment has. `name` is the kind,
    in the singular. Call it in the module `ready` of the app.
    """
    _counts[name] = count


def dependents_of(environment_id: UUID) -> dict[str, int]:
    """Returns for each registered kind of row how many the environment has. Kinds of which it has none are left out."""
    found = {name: count(environment_id) for name, count in _counts.items()}
    return {name: number for name, number in found.items() if number}
