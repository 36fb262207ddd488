"""Wakes the workers for whose runs a connection is ready again, by its domain event (SPEC §24)."""

from collections.abc import Iterable
from typing import Any

from django.dispatch import receiver

from pipedai.events import Event, happened
from pipedai.sql import fetch_all
from triggers.runs.conditions import IS_COUNTED_AS_QUEUED
from triggers.runs.routing import wake_for

# Waiting polls also ask on a timer, so it does not matter if more runs wait.
_MOST_WOKEN = 1_000
_WAITING = f"""
SELECT r.worker_id, r.pool_id FROM trigger t JOIN run r ON r.trigger_id = t.id
WHERE t.connection_id = ANY(%(ids)s) AND {IS_COUNTED_AS_QUEUED} LIMIT {_MOST_WOKEN}
"""  # noqa: S608 - our own condition


@receiver(happened, dispatch_uid="triggers.connected")
def wake(events: Iterable[Event], **_: Any) -> None:
    ids = [event.target_id for event in events if event.action == "connection.authorized"]
    if ids:
        wake_for(fetch_all(_WAITING, {"ids": ids}))
