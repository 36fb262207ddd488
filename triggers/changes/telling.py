"""Hears of every change by the domain events, and notifies the streams of its environment if there are any."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from django.dispatch import receiver

from pipedai.events import Event, happened
from pipedai.sql import execute, fetch_all
from pipedai.wakeups import WATCHED_SECONDS, announce_things, announce_watch, watches
from triggers.changes.kinds import is_told

_WATCH = """
INSERT INTO environment_watch (environment_id, watched_until)
VALUES (%(environment_id)s, statement_timestamp() + %(seconds)s * interval '1 second')
ON CONFLICT (environment_id) DO UPDATE SET watched_until = excluded.watched_until
"""
_WATCHED = (
    "SELECT environment_id FROM environment_watch WHERE watched_until > statement_timestamp()"
)


@receiver(happened, dispatch_uid="triggers.tell_changes")
def tell(events: tuple[Event, ...], **_: Any) -> None:
    changed: defaultdict[tuple[UUID, str], set[UUID]] = defaultdict(set)
    for event in events:
        if (
            event.environment_id is not None
            and event.target_id is not None
            and is_told(event.target_type)
            and watches.is_watched(event.environment_id)
        ):
            changed[event.environment_id, event.target_type].add(event.target_id)
    for (environment_id, kind), ids in changed.items():
        announce_things(environment_id, kind, ids)


def announce(environment_id: UUID) -> None:
    """Tells all processes that somebody streams this environment. Schedulers read it within a second."""
    execute(_WATCH, {"environment_id": environment_id, "seconds": WATCHED_SECONDS})
    announce_watch(environment_id)


def read_watches() -> int:
    """The scheduler's job that learns which environments are streamed, since it hears no notifications."""
    for row in fetch_all(_WATCHED, {}):
        watches.hear(str(row["environment_id"]))
    return 0
