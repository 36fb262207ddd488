"""What keeps an environment from being deleted: other apps register what they hold in it."""

from collections.abc import Callable
from uuid import UUID

_counts: dict[str, Callable[[UUID], int]] = {}


def register_dependents(name: str, count: Callable[[UUID], int]) -> None:
    """`count(environment_id)` says how many there are of `name`, a singular. Call it from `AppConfig.ready()`."""
    _counts[name] = count


def dependents_of(environment_id: UUID) -> dict[str, int]:
    """How many there are of each kind that the environment still has."""
    found = {name: count(environment_id) for name, count in _counts.items()}
    return {name: number for name, number in found.items() if number}
