"""Gives a new environment its first channel, and notes who leaves one (SPEC §14)."""

from typing import Any
from uuid import UUID

from django.conf import settings

from accounts.models import User
from notices.channels.consent import agree, leave
from notices.channels.models import Channel
from notices.states import INCIDENT_EVENTS
from pipedai.events import SYSTEM, Event, emit, happened
from workspaces.models import Environment

_NAME = "Mail to the owner"


def add_first_channel(events: tuple[Event, ...], **_: Any) -> None:
    """Adds to each new environment a channel that mails all incidents and recoveries to the creator. It does so only
    while the service sends mail. The channel sends nothing before the creator has proved their address.

    The environment of the demo gets a channel even without a mail server, because its mails are then written to files.
    """
    for event in events:
        if event.environment_id is None:
            continue
        if event.action == "environment.created" and event.actor.type == "user":
            if settings.EMAIL_URL and event.actor.id is not None:
                _add(event.environment_id, User.objects.get(id=event.actor.id))
        elif event.action == "demo.seeded" and "environment" in event.metadata.get("made", ()):
            environment = Environment.objects.select_related("workspace__created_by")
            _add(
                event.environment_id, environment.get(id=event.environment_id).workspace.created_by
            )


def note_leavers(events: tuple[Event, ...], **_: Any) -> None:
    """Ends the notices to members who leave an environment or are removed from it."""
    for event in events:
        if event.action == "member.removed" and event.environment_id and event.target_id:
            is_removed = event.actor.id != event.target_id
            leave(event.environment_id, event.target_id, is_removed=is_removed)


def _add(environment_id: UUID, creator: User) -> None:
    channel = Channel(
        environment_id=environment_id,
        name=_NAME,
        kind=Channel.Kind.EMAIL,
        emails=[creator.email],
        events=list(INCIDENT_EVENTS),
        created_by=creator.id,
    )
    channel.save(force_insert=True)
    agree(environment_id, creator)
    metadata = {"name": channel.name, "kind": channel.kind}
    emit(Event("channel.created", SYSTEM, environment_id, "channel", channel.id, metadata))


def connect() -> None:
    """Connects the receivers to the domain events. Call it from `AppConfig.ready()`."""
    happened.connect(note_leavers, dispatch_uid="notices.channels.receivers.leavers")
    happened.connect(add_first_channel, dispatch_uid="notices.channels.receivers")
