"""Receives the domain events of all apps, and passes on those that open or close incidents (SPEC §14).

It runs in the transaction of the action that emitted the events, like the audit log. An error rolls the action back.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.dispatch import receiver

from notices.announcing import FinalOutcome, announce_outcomes
from notices.dead_webhooks import note_delivered, note_given_up
from notices.health import (
    Ended,
    judge_ends,
    judge_made_up,
    judge_resumed,
    judge_settings,
    watch_new,
)
from notices.incidents import change_incidents
from notices.states import Kind, SubjectType
from pipedai.events import Event, happened
from pipedai.sql import fetch_all
from triggers.states import Status

# The events of runs that ended with an outcome. A canceled run has none, so `run.canceled` is not among them.
_ENDS = frozenset({"run.completed", "run.lost", "run.timed-out", "run.not-started"})
_OUTCOMES = (Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT)
# The settings of a trigger on which its health depends, by their names in the API.
_SETTINGS = frozenset(
    {"enabled", "schedule", "timezone", "alertAfterFailures", "successDeadlineSeconds"}
)
# Finds those of these runs that have a retry which no late result canceled.
_RETRIED = """
SELECT retry_of_id FROM run WHERE retry_of_id = ANY(%(ids)s) AND ended_by IS DISTINCT FROM 'late_result'
"""


@receiver(happened, dispatch_uid="notices.notice")
def notice(events: tuple[Event, ...], **_: Any) -> None:
    """Opens and closes incidents because of these events. Events that concern no incident cost no statement."""
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.action in _ENDS or event.action in _NOTED:
            found.setdefault(event.action, []).append(event)
    if not found:
        return
    if ends := [event for event in events if event.action in _ENDS]:
        _note_ends(ends, events)
    for action, note in _NOTED.items():
        if named := found.get(action):
            note(named)


def _note_created(created: Sequence[Event]) -> None:
    watch_new([_target(event) for event in created])


def _note_seeded(seeded: Sequence[Event]) -> None:
    for event in seeded:
        if event.target_type == "workspace":
            judge_made_up(_target(event))


def _note_ends(ends: Sequence[Event], events: Sequence[Event]) -> None:
    """Judges the triggers whose runs have ended. A failure that a retry follows does not count as an outcome (SPEC
    §14).
    """
    retried = {
        event.metadata["retryOf"] for event in events if event.action == "run.retried"
    } | _retried_before([event for event in ends if event.metadata.get("late")])
    ended: dict[UUID, Ended] = {}
    outcomes = []
    for event in ends:
        replaces = bool(event.metadata.get("late"))
        status = event.metadata["status"]
        is_final = str(event.target_id) not in retried and status in _OUTCOMES
        if is_final or replaces:
            each = ended.setdefault(UUID(event.metadata["triggerId"]), Ended())
            each.replaced |= replaces
            each.succeeded |= is_final and status == Status.SUCCEEDED
            # A late failure does not count here, because it replaces a failure that was counted already.
            each.failures += is_final and not replaces and status != Status.SUCCEEDED
        if is_final:
            outcomes.append(_outcome(event))
    untold = judge_ends(ended) if ended else set()
    announce_outcomes([each for each in outcomes if each.trigger_id not in untold])


def _retried_before(late: Collection[Event]) -> set[str]:
    """Returns the ids of the runs with these late results whose retry stays, because the late result calls for one."""
    if not late:
        return set()
    rows = fetch_all(_RETRIED, {"ids": [event.target_id for event in late]})
    return {str(row["retry_of_id"]) for row in rows}


def _outcome(event: Event) -> FinalOutcome:
    assert event.environment_id is not None
    return FinalOutcome(_target(event), event.environment_id, UUID(event.metadata["triggerId"]))


def _note_settings(updated: Sequence[Event]) -> None:
    # The incidents of webhooks come first: `judge_settings` may lock channels, and incidents are locked before
    # channels.
    moved = [_target(event) for event in updated if "webhookUrl" in event.metadata]
    change_incidents(Kind.WEBHOOK_DEAD, SubjectType.TRIGGER, withdrawn=moved)
    judge_settings(
        [_target(event) for event in updated if event.metadata.keys() & _SETTINGS],
        enabled=[
            _target(event) for event in updated if event.metadata.get("enabled") == [False, True]
        ],
    )


def _note_deleted(deleted: Sequence[Event]) -> None:
    gone = [_target(event) for event in deleted]
    judge_settings(gone)
    change_incidents(Kind.WEBHOOK_DEAD, SubjectType.TRIGGER, withdrawn=gone)


def _note_environments(updated: Sequence[Event]) -> None:
    for event in updated:
        if event.metadata.get("paused") == [True, False]:
            judge_resumed(_target(event))


def _target(event: Event) -> UUID:
    assert event.target_id is not None
    return event.target_id


# The functions that act on the other events, in the order in which they are called.
_NOTED: Mapping[str, Callable[[Sequence[Event]], None]] = {
    "environment.updated": _note_environments,
    "trigger.created": _note_created,
    "trigger.updated": _note_settings,
    "trigger.deleted": _note_deleted,
    "demo.seeded": _note_seeded,
    "webhook.failed": note_given_up,
    "webhook.delivered": note_delivered,
}
