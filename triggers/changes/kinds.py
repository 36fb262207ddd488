"""Defines the kinds of things whose changes the stream of an environment tells. The apps register theirs."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

# A thing of an environment: its kind, and its id.
Thing = tuple[str, UUID]


class State(NamedTuple):
    """A thing as it is now: its id, its state as one word, and other things whose state depends on it."""

    id: UUID
    status: str
    others: tuple[Thing, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of things. `name` is also the target type of the events that report their changes."""

    name: str
    # Returns the states of those of the things with these ids that exist in an environment.
    read: Callable[[UUID, Collection[UUID]], list[State]]
    # Returns which things changed by the mere passing of time after the first of two times, up to the second. None
    # for a kind of which none does.
    changed_by_time: Callable[[UUID, datetime, datetime], Collection[UUID]] | None = None


_kinds: dict[str, Kind] = {}


def register_changing(kind: Kind) -> None:
    """Adds a kind of things. Call it in the module `ready` of the app."""
    _kinds[kind.name] = kind


def kinds() -> list[Kind]:
    """Returns the registered kinds, in the order of registration. A kind comes before those that depend on it."""
    return list(_kinds.values())


def is_told(target_type: str) -> bool:
    """Whether changes of such a target are told."""
    return target_type in _kinds
