"""Gives a new environment its first channel (SPEC §14)."""

from typing import Any

from django.conf import settings

from accounts.models import User
from notices.channels.models import Channel
from notices.channels.words import INCIDENT_EVENTS
from pipedai.events import SYSTEM, Event, emit, happened

_NAME = "Mail to the owner"


def add_first_channel(events: tuple[Event, ...], **_: Any) -> None:
    """Adds a channel of mail to the creator of each new environment, for all incidents and recoveries, while the
    service sends mail. It sends nothing before the creator has proved their address.
    """
    if not settings.EMAIL_URL:
        return
    for event in events:
        if event.action == "environment.created" and event.actor.type == "user":
            _add(event)


def _add(event: Event) -> None:
    email = User.objects.values_list("email", flat=True).get(id=event.actor.id)
    channel = Channel(
        environment_id=event.environment_id,
        name=_NAME,
        kind=Channel.Kind.EMAIL,
        emails=[email],
        events=list(INCIDENT_EVENTS),
        created_by=event.actor.id,
    )
    channel.save(force_insert=True)
    told = {"name": channel.name, "kind": channel.kind}
    emit(Event("channel.created", SYSTEM, event.environment_id, "channel", channel.id, told))


def connect() -> None:
    """Starts to listen to domain events. Call it from `AppConfig.ready()`."""
    happened.connect(add_first_channel, dispatch_uid="notices.channels.receivers")
