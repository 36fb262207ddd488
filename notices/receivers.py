"""Receives the domain events of all apps in their transactions: opens and closes incidents, gives new environments
their first channel, ends the mail to users who leave one, and has changed budgets looked at.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.dispatch import receiver

from accounts.models import User
from notices.channels.consent import agree, leave
from notices.channels.outcomes import announce_questions, note_outcomes
from notices.health import (
    Ended,
    judge_ends,
    judge_made_up,
    judge_resumed,
    judge_settings,
    watch_new,
)
from notices.incidents import Finding, change_incidents
from notices.models import Channel
from notices.states import USUAL_EVENTS, Kind
from pipedai.events import SYSTEM, Event, emit, happened
from pipedai.sql import fetch_all
from triggers.budgets.services import look_again
from triggers.states import Status
from workspaces.models import Environment

# The events of runs that ended with an outcome. `run.canceled` is missing because a canceled run has no outcome.
_ENDS = frozenset(
    {"run.completed", "run.lost", "run.timed-out", "run.not-started", "run.approval-expired"}
)
_OUTCOMES = (Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT)
# The settings of a trigger that its health depends on, by their names in the API.
_SETTINGS = frozenset(
    {"enabled", "schedule", "timezone", "runOnceAt", "alertAfterFailures", "successDeadlineSeconds"}
)
# Finds those of the given runs that have a retry, unless a late result canceled the retry.
_RETRIED = """
SELECT retry_of_id FROM run WHERE retry_of_id = ANY(%(ids)s) AND ended_by IS DISTINCT FROM 'late_result'
"""

# Selects the deliveries that open an incident. A delivery to a URL that the trigger no longer has opens none, because
# it says nothing about the present URL. A test opens none, because the person who sent it sees its result.
_GIVEN_UP = """
SELECT d.id, d.environment_id, d.trigger_id, t.name, d.run_id
FROM delivery d JOIN trigger t ON t.id = d.trigger_id
WHERE d.id = ANY(%(ids)s) AND d.run_id IS NOT NULL AND t.deleted_at IS NULL AND t.webhook_url = d.url
"""

# Selects the triggers with an open incident among those whose webhooks were delivered.
_DELIVERED = """
SELECT i.subject_id FROM delivery d
JOIN trigger t ON t.id = d.trigger_id AND t.webhook_url = d.url
JOIN incident i ON i.subject_id = d.trigger_id AND i.kind = 'webhook_dead' AND i.environment_id = d.environment_id
    AND i.closed_at IS NULL
WHERE d.id = ANY(%(ids)s)
"""

# How a connection of each grant gets tokens again.
_MENDED_BY = {
    "authorization_code": "somebody connects it again on its page",
    "client_credentials": "it gets another client secret on its page",
}

_FIRST_CHANNEL = "Mail to the owner"


@receiver(happened, dispatch_uid="notices.follow_events")
def follow_events(events: tuple[Event, ...], **_: Any) -> None:
    """Opens and closes incidents because of these events. Events that concern no incident cost no statement."""
    if ends := [event for event in events if event.action in _ENDS]:
        _note_ends(ends, events)
    for action, note in _NOTED.items():
        if found := [event for event in events if event.action == action]:
            note(found)
    # All budgets together, because their windows are locked in one order, and after everything else.
    if budgets := [each for each in events if each.action in ("budget.updated", "budget.deleted")]:
        look_again(budgets)


def _note_seeded(seeded: Sequence[Event]) -> None:
    for event in seeded:
        if event.target_type == "workspace":
            judge_made_up(_target(event))


def _note_ends(ends: Sequence[Event], events: Sequence[Event]) -> None:
    """Notes the ends of runs. A failure that is retried does not count as an outcome."""
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
            outcomes.append(event)
    untold = judge_ends(ended) if ended else set()
    told = [
        (event.environment_id, _target(event))
        for event in outcomes
        if event.environment_id and UUID(event.metadata["triggerId"]) not in untold
    ]
    if told:
        note_outcomes(told)


def _retried_before(late: Collection[Event]) -> set[str]:
    """Returns the ids of the runs whose retry stays although a late result came, because the result is retried too."""
    if not late:
        return set()
    rows = fetch_all(_RETRIED, {"ids": [event.target_id for event in late]})
    return {str(row["retry_of_id"]) for row in rows}


def _announce_questions(asked: Sequence[Event]) -> None:
    """Queues the notices about runs that wait for a decision, in the transaction in which they begin to wait."""
    found = ((UUID(event.metadata["approvalId"]), event.environment_id) for event in asked)
    announce_questions([{"id": id_, "environment_id": of} for id_, of in found])


def _note_settings(updated: Sequence[Event]) -> None:
    # The incidents of webhooks come first, because `judge_settings` may take turns for receivers of notices, and
    # incidents must be locked before that to prevent deadlocks.
    moved = [event for event in updated if "webhookUrl" in event.metadata]
    enabled = [event for event in updated if event.metadata.get("enabled") == [False, True]]
    changed = [event for event in updated if event.metadata.keys() & _SETTINGS]
    change_incidents(Kind.WEBHOOK_DEAD, withdrawn=_targets(moved))
    judge_settings(_targets(changed), enabled=_targets(enabled))


def _note_deleted(deleted: Sequence[Event]) -> None:
    judge_settings(_targets(deleted))
    change_incidents(Kind.WEBHOOK_DEAD, withdrawn=_targets(deleted))


def _note_environments(updated: Sequence[Event]) -> None:
    for event in updated:
        if event.metadata.get("paused") == [True, False]:
            judge_resumed(_target(event))


def _note_given_up(given_up: Sequence[Event]) -> None:
    answers = {event.target_id: event.metadata for event in given_up}
    findings = []
    for row in fetch_all(_GIVEN_UP, {"ids": list(answers)}):
        answer = answers[row["id"]]
        cause = answer["error"] or f"the receiver answered {answer['statusCode']}"
        message = f"A webhook to {answer['host']} was given up: {cause}."
        findings.append(
            Finding(row["environment_id"], row["trigger_id"], row["name"], message, row["run_id"])
        )
    change_incidents(Kind.WEBHOOK_DEAD, begun=findings)


def _note_delivered(delivered: Sequence[Event]) -> None:
    rows = fetch_all(_DELIVERED, {"ids": _targets(delivered)})
    change_incidents(Kind.WEBHOOK_DEAD, recovered={row["subject_id"] for row in rows})


def _note_refused(refused: Sequence[Event]) -> None:
    findings = []
    for event in refused:
        assert event.environment_id is not None
        said = event.metadata
        mended = _MENDED_BY[said["grant"]]
        message = f"{said['error']} Its runs wait until {mended}."
        findings.append(Finding(event.environment_id, _target(event), said["name"], message))
    change_incidents(Kind.CONNECTION_NEEDS_LOGIN, begun=findings)


def _target(event: Event) -> UUID:
    assert event.target_id is not None
    return event.target_id


def _targets(events: Sequence[Event]) -> list[UUID]:
    return [_target(event) for event in events]


# The functions that act on the other events, in the order in which they are called.
_NOTED: Mapping[str, Callable[[Sequence[Event]], object]] = {
    "environment.updated": _note_environments,
    "trigger.created": lambda created: watch_new(_targets(created)),
    "trigger.updated": _note_settings,
    "trigger.deleted": _note_deleted,
    "demo.seeded": _note_seeded,
    "run.waiting": _announce_questions,
    "webhook.failed": _note_given_up,
    "webhook.delivered": _note_delivered,
    "connection.login-needed": _note_refused,
    "connection.authorized": lambda done: change_incidents(
        Kind.CONNECTION_NEEDS_LOGIN, recovered=_targets(done)
    ),
    "connection.deleted": lambda gone: change_incidents(
        Kind.CONNECTION_NEEDS_LOGIN, withdrawn=_targets(gone)
    ),
}


@receiver(happened, dispatch_uid="notices.add_first_channel")
def add_first_channel(events: tuple[Event, ...], **_: Any) -> None:
    """Adds to each new environment a channel that mails its creator. It sends nothing before the creator has confirmed
    their e-mail address. Without a mail server only the demo's environment gets a channel.
    """
    for event in events:
        if event.environment_id is None:
            continue
        if event.action == "environment.created" and event.actor.type == "user":
            if settings.EMAIL_URL and event.actor.id is not None:
                _add_channel(event.environment_id, User.objects.get(id=event.actor.id))
        elif event.action == "demo.seeded" and "environment" in event.metadata.get("made", ()):
            environment = Environment.objects.select_related("workspace__created_by")
            _add_channel(
                event.environment_id, environment.get(id=event.environment_id).workspace.created_by
            )


@receiver(happened, dispatch_uid="notices.end_mail_of_leavers")
def end_mail_of_leavers(events: tuple[Event, ...], **_: Any) -> None:
    for event in events:
        if event.action == "member.removed" and event.environment_id and event.target_id:
            is_removed = event.actor.id != event.target_id
            leave(event.environment_id, event.target_id, is_removed=is_removed)


def _add_channel(environment_id: UUID, creator: User) -> None:
    channel = Channel(
        environment_id=environment_id,
        name=_FIRST_CHANNEL,
        kind=Channel.Kind.EMAIL,
        emails=[creator.email],
        events=list(USUAL_EVENTS),
        created_by=creator.id,
    )
    channel.save(force_insert=True)
    agree(environment_id, creator)
    metadata = {"name": channel.name, "kind": channel.kind}
    emit(Event("channel.created", SYSTEM, environment_id, "channel", channel.id, metadata))
