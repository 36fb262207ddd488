"""Counts the rows, such as triggers, that keep an environment from being deleted."""

from collections.abc import Callable
from uuid import UUID

_counts: dict[str, Callable[[UUID], int]] = {}


def register_dependents(name: str, count: Callable[[UUID], int]) -> None:
    """`name` is the kind of row, in the singular."""
    _counts[name] = count


def dependents_of(environment_id: UUID) -> dict[str, int]:
    found = {name: count(environment_id) for name, count in _counts.items()}
    return {name: number for name, number in found.items() if number}
