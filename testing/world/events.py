"""Makes sources of events, what they sent, and listeners."""

import hmac
from typing import Any
from uuid import UUID

from django.utils import timezone

from testing.world.cast import TEST_ACTOR, Cast
from triggers.events.sources import SOURCES
from triggers.models import Event, EventDecision, EventKey, Listener, RefusedRequest, Trigger

SOURCE_SECRET = "a-planted-secret-of-a-source"  # noqa: S105


def add_source(cast: Cast, scheme: str = "github", **values: Any) -> UUID:
    """Adds a source with a planted secret to the cast's environment."""
    given = {"name": "Repository", "scheme": scheme, "secrets": [SOURCE_SECRET], **values}
    return SOURCES.create(environment_id=cast.environment.id, values=given, actor=TEST_ACTOR)


def github(body: bytes, *, secret: str = SOURCE_SECRET, **headers: str) -> dict[str, str]:
    """Returns the headers with which GitHub would send the body."""
    digest = hmac.digest(secret.encode(), body, "sha256").hex()
    return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "push", **headers}


def add_event(cast: Cast, **values: Any) -> Event:
    """Adds an event to the cast's environment: of a source with an empty body, unless a `run_id` is given."""
    if "run_id" not in values:
        values = {"body": {}, "decided_at": timezone.now(), **values}
    return Event.objects.create(environment=cast.environment, **values)


def add_decision(event: Event, trigger_id: UUID, decision: str, **values: Any) -> EventDecision:
    return EventDecision.objects.create(
        environment_id=event.environment_id,
        event=event,
        source_id=event.source_id,
        received_at=event.received_at,
        trigger_id=trigger_id,
        decision=decision,
        **values,
    )


def add_every_row(cast: Cast, trigger_id: UUID, upstream_id: UUID, run_id: UUID) -> dict[str, UUID]:
    """Adds a row to each table of events: two listeners of the trigger, and the decision to queue the run. Returns the
    ids of the source and of an event.
    """
    source_id = add_source(cast)
    event = add_event(cast, source_id=source_id)
    add_event(cast, source_id=source_id, replay_of=event)
    add_event(cast, run_id=run_id)
    EventKey.objects.create(
        environment=cast.environment,
        source_id=source_id,
        key=cast.environment.id.bytes,
        event_id=event.id,
        expires_at=event.received_at,
    )
    RefusedRequest.objects.create(
        environment=cast.environment,
        source_id=source_id,
        reason="unsigned",
        hour=event.received_at,
        count=1,
        last_at=event.received_at,
    )
    heard: tuple[dict[str, Any], ...] = (
        {"source_id": source_id},
        {"upstream_id": upstream_id, "outcome": "any"},
    )
    for position, values in enumerate(heard):
        Listener.objects.create(
            environment=cast.environment, trigger_id=trigger_id, position=position, **values
        )
    add_decision(event, trigger_id, "fired", run_id=run_id)
    add_decision(event, upstream_id, "refused", code="trigger_disabled")
    return {"event_source": source_id, "event": event.id}


def listen(trigger_id: UUID, **values: Any) -> Listener:
    """Adds an entry to the trigger's `on`, behind those that it has."""
    listeners = Listener.objects.filter(trigger_id=trigger_id)
    environment_id = Trigger.objects.values_list("environment_id", flat=True).get(id=trigger_id)
    return Listener.objects.create(
        environment_id=environment_id,
        trigger_id=trigger_id,
        position=listeners.count(),
        **values,
    )
