"""Stops and resumes the handing out of runs by the domain event of an environment's pause."""

from collections.abc import Iterable
from typing import Any

from django.dispatch import receiver

from pipedai.events import Event, emit, happened
from pipedai.sql import fetch_all
from pipedai.wakeups import wake_workers
from triggers.locks import lock_workers
from triggers.runs import statements as sql
from triggers.runs.ending import run_event


@receiver(happened, dispatch_uid="triggers.pausing")
def pause(events: Iterable[Event], **_: Any) -> None:
    """Waits for the claims of an environment that was just paused, so that none ends after the commit, and cancels its
    runs if that is wanted. A resumed environment's workers are woken.
    """
    for event in events:
        if event.action != "environment.updated":
            continue
        if "paused" in event.metadata:
            assert event.environment_id is not None, "the event is about an environment"
            wake_workers(lock_workers(event.environment_id))
        if event.metadata.get("cancelHeld"):
            _cancel_held(event)


def _cancel_held(paused: Event) -> None:
    params = {"environment_id": paused.environment_id, "now": None}
    runs = fetch_all(sql.REQUEST_CANCEL_OF_HELD, params)
    emit(*(run_event("run.cancel-requested", paused.actor, run) for run in runs))
    wake_workers([run["worker_id"] for run in runs])
