"""The stream of an environment, which tells what has changed: each thing with the state that it has now.

The domain events say what has changed. A process is notified only if somebody reads such a stream. Apps register the
kinds of things that they have.
"""

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from django.dispatch import receiver
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.principal import principal_of
from pipedai.api.renderers import compact_json
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import (
    MEDIA_TYPE,
    StreamViewMixin,
    announce_stream,
    count_stream,
    event_text,
    stream_answer,
    ticket_of,
)
from pipedai.events import Event, happened
from pipedai.replica.reading import remember
from pipedai.server.ticket import EnvironmentStreamTicket
from pipedai.sql import database_now, execute, fetch_all
from pipedai.wakeups import WATCHED_SECONDS, announce_things, announce_watch, watches
from workspaces.access import IsViewer, TenantViewSet

# A thing of an environment: its kind, and its id.
Thing = tuple[str, UUID]


class State(NamedTuple):
    """A thing as it is now: its id, its state as one word, and other things whose state depends on it."""

    id: UUID
    status: str
    others: tuple[Thing, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of things. `name` is also the target type of the events that report their changes."""

    name: str
    # Takes the ids of things and an environment, and returns the states of those that exist there.
    read: Callable[[UUID, Collection[UUID]], list[State]]
    # Takes two times, and returns which things changed between them only because time passed. None for a kind of which
    # nothing changes in this way.
    changed_by_time: Callable[[UUID, datetime, datetime], Collection[UUID]] | None = None


_kinds: dict[str, Kind] = {}


def register_changing(kind: Kind) -> None:
    _kinds[kind.name] = kind


def kinds() -> list[Kind]:
    return list(_kinds.values())


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
            and event.target_type in _kinds
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


# How many changed things one answer tells at most. The stream asks again for the rest.
PIECE = 200
# How long the scheduler may take to learn of a new stream. The stream sends its first line after this time, so that no
# change after that line is missed.
OPENING_SECONDS = 1.1
# The state of a thing that does not exist any more.
DELETED = "deleted"


def changes_of(ticket: EnvironmentStreamTicket, *, environment_id: UUID) -> list[dict[str, str]]:
    """Returns the things that changed, each with the state that it has now, as the API tells them."""
    announce_stream(ticket, partial(announce, environment_id))
    now = database_now()
    since, ticket.asked_at = ticket.asked_at, now
    if since is None:
        ticket.opening_seconds = OPENING_SECONDS
        return []
    for kind in kinds():
        if kind.changed_by_time is not None:
            by_time = kind.changed_by_time(environment_id, since, now)
            ticket.changed.update((kind.name, id_) for id_ in by_time)
    piece = set(islice(ticket.changed, PIECE))
    ticket.changed -= piece
    ticket.more = bool(ticket.changed)
    told: dict[Thing, str] = {}
    # The second round tells the things whose state depends on those of the first.
    for _ in range(2):
        others: set[Thing] = set()
        for kind in kinds():
            ids = sorted(id_ for name, id_ in piece if name == kind.name)
            states = {state.id: state for state in kind.read(environment_id, ids)} if ids else {}
            told |= {(kind.name, id_): DELETED for id_ in ids}
            told |= {(kind.name, id_): state.status for id_, state in states.items()}
            others.update(*(state.others for state in states.values()))
        piece = others - told.keys()
    return [
        {"type": kind, "id": str(id_), "status": status} for (kind, id_), status in told.items()
    ]


_TYPES = ("run", "worker", "incident", "connection", "approval", "source")


class EnvironmentEventViewSet(StreamViewMixin, TenantViewSet):
    tag = "Environments"
    permissions = {"stream": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/events/stream",
        id="streamEnvironmentEvents",
        summary="Stream an environment's changes",
        answers={
            200: answer(
                "EnvironmentEvent",
                "Something of the environment has changed.",
                type=serializers.ChoiceField(choices=[*_TYPES, "all"]),
                id=serializers.UUIDField(required=False),
                status=serializers.CharField(required=False),
            )
        },
        media_type=MEDIA_TYPE,
    )
    def stream(self, request: Request, environment_id: UUID) -> HttpResponse:
        """Answers with the changes since the last answer. The web process calls it as long as the reader reads."""
        ticket = ticket_of(request, EnvironmentStreamTicket, group=environment_id)
        count_stream(request, ticket)
        told = changes_of(ticket, environment_id=environment_id)
        if ticket.missed:
            # Some notifications were lost, so the reader must read everything again.
            ticket.missed = False
            told.insert(0, {"type": "all"})
        if told:
            # A reader who is told of a change reads a list next. This makes sure that the list shows the change.
            remember([principal_of(request).id])
        return stream_answer("".join(event_text(compact_json(each)) for each in told))
