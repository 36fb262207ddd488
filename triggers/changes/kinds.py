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
    # Returns which things changed merely because time passed from the first to the second of two times. None for a kind
    # of which nothing changes in this way.
    changed_by_time: Callable[[UUID, datetime, datetime], Collection[UUID]] | None = None


_kinds: dict[str, Kind] = {}


def register_changing(kind: Kind) -> None:
    _kinds[kind.name] = kind


def kinds() -> list[Kind]:
    return list(_kinds.values())


def is_told(target_type: str) -> bool:
    return target_type in _kinds
