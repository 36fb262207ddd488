"""Says why a run has no events, and how to have them."""

from pipedai.sql import Row
from triggers.run_events.event import TAKEN_AFTER_END
from triggers.states import RecordEvents, Status

DROPPED = (
    "The run's events were dropped, because they had become as old as the service lets any become."
)
_NEVER = (
    "The run has no events, because its trigger's recordEvents is never: set it to failures or always to have those of"
    " the next runs."
)
_SUCCEEDED = (
    "The run has no events, because it succeeded and its trigger's recordEvents is failures: set it to always to have"
    " those of the next runs however they end."
)
_KEPT = (
    "The run has no events before its end, because its trigger's recordEvents is failures: set it to always to have"
    " those of the next runs as they come."
)
_UNCLAIMED = "The run has no events yet, because no worker has claimed it."
_SILENT = "The run has no events yet, because its worker has sent none."
_UNEXECUTED = "The run has no events, because no worker executed it."
_AWAITED = (
    "The run has no events yet, because its worker has sent none: it does as soon as it reaches the service, until 24"
    " hours after the run's end."
)
_LATE = "The run has no events, because its worker sent none within 24 hours of the run's end: its log may say why."


def why_none(progress: Row) -> str | None:
    """Returns a sentence on why none of the run's events were stored, or None if some were.

    `progress` is what `triggers.run_events.reading` reads of the run, its trigger and its events. The trigger's setting
    of today counts, which may have been another one when the run was handed out.
    """
    mode, silent_seconds = progress["record_events"], progress["silent_seconds"]
    if progress["stored"]:
        return None
    if mode == RecordEvents.NEVER:
        return _NEVER
    if silent_seconds is None:
        if mode == RecordEvents.FAILURES:
            return _KEPT
        return _SILENT if progress["was_claimed"] else _UNCLAIMED
    if mode == RecordEvents.FAILURES and progress["status"] == Status.SUCCEEDED:
        return _SUCCEEDED
    if not progress["was_claimed"]:
        return _UNEXECUTED
    return _AWAITED if silent_seconds <= TAKEN_AFTER_END.total_seconds() else _LATE
