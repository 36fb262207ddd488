"""Lets metrics count domain events after the transactions of these events are committed."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import transaction

from pipedai.events import Event, happened

_counts: list[Callable[[Event], None]] = []


def count_events(count: Callable[[Event], None]) -> Callable[[Event], None]:
    """Decorator: calls the function with every domain event, after the event's transaction is committed."""
    if not _counts:
        happened.connect(_await_commit, dispatch_uid="pipedai.metrics")
    _counts.append(count)
    return count


def _await_commit(events: tuple[Event, ...], **_: Any) -> None:
    # With `robust` an error in counting is only logged, so that an action that is committed already does not look
    # failed.
    transaction.on_commit(partial(_count, events), robust=True)


def _count(events: tuple[Event, ...]) -> None:
    for event in events:
        for count in _counts:
            count(event)
