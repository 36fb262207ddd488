"""The endpoints of sources and events: list, make, change and delete sources, take events, read and replay them."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import BodyTooLarge
from pipedai.api.fields import (
    ListField,
    PatternField,
    SigningSecretField,
    TextField,
    TrueFalseField,
)
from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from pipedai.api.pagination import KeysetPaginator, usual
from pipedai.api.parsers import hold_memory
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, NoBody, RowSerializer, StrictBody, sources_of
from pipedai.api.throttling import by_address
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.replica.reading import from_replica
from pipedai.server.request_scope import HOOKS
from triggers.events import receiving
from triggers.events.refusals import with_history, with_hours
from triggers.events.sources import SOURCES
from triggers.models import Event, EventDecision, EventSource, RefusedRequest
from triggers.states import EventDecided, Scheme
from workspaces.access import IsOperator, TenantViewSet
from workspaces.resource_views import RecentFilters, ResourceViewSet
from workspaces.serializers import FileBody

# The characters of a header's name that every proxy passes on.
_HEADER = r"^[A-Za-z0-9-]{1,100}$"


class HmacBody(StrictBody):
    """Where a sender of the scheme `hmac` puts its signature."""

    keeps_names = True

    header = PatternField(_HEADER)
    prefix = TextField(max_length=40, allow_blank=True, trim_whitespace=False, default="")
    timestampHeader = PatternField(_HEADER, allow_null=True, default=None)


class SourceBody(FileBody):
    scheme = serializers.ChoiceField(choices=Scheme.choices)
    secrets = ListField(
        child=TextField(
            min_length=SigningSecretField.MIN_LENGTH, max_length=1024, trim_whitespace=False
        ),
        min_length=1,
        max_length=2,
    )
    hmac = HmacBody(required=False, allow_null=True)
    enabled = TrueFalseField(required=False)


class RefusedSerializer(RowSerializer):
    """How many requests were refused for one reason in the last day."""

    of = RefusedRequest
    shows = "reason count lastAt"


class SourceRowSerializer(RowSerializer):
    """A source, without its secrets, and without `recent`, which a list has only if it was asked for."""

    of = EventSource
    shows = (
        "id key managedBy environmentId name scheme hmac enabled url lastEventAt typesSeen"
        " refused createdAt updatedAt"
    )
    hmac = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()
    typesSeen = serializers.ListField(child=serializers.CharField())
    refused = RefusedSerializer(many=True)

    @extend_schema_field(HmacBody(allow_null=True))
    def get_hmac(self, source: dict[str, Any]) -> Any:
        return source["hmac"]

    def get_url(self, source: dict[str, Any]) -> str:
        """The path, below the service's own address, to which the source sends its events."""
        return f"{HOOKS}{source['id']}"


class HoursSerializer(RowSerializer):
    """How many requests a source took, how many of them started something, and how many it refused, by hour."""

    taken = serializers.ListField(child=serializers.IntegerField())
    started = serializers.ListField(child=serializers.IntegerField())
    refused = serializers.ListField(child=serializers.IntegerField())


class SourceSerializer(SourceRowSerializer):
    """A source, without its secrets."""

    recent = HoursSerializer(required=False)


class DecisionSerializer(RowSerializer):
    """What was decided about an event for a trigger that listens to its source."""

    of = EventDecision
    shows = "triggerId triggerName decision code clause runId"
    triggerName = serializers.CharField(source="trigger__name")


class EventSerializer(RowSerializer):
    """An event and its decisions."""

    of = Event
    shows = "id eventId type receivedAt decidedAt duplicates replayOf environmentId sourceId runId decisions"
    eventId = serializers.CharField(source="given_id", allow_null=True)
    replayOf = serializers.UUIDField(source="replay_of_id", allow_null=True)
    decisions = DecisionSerializer(many=True)


class EventDetailSerializer(EventSerializer):
    """A single event with its body."""

    body = serializers.JSONField(allow_null=True)


_EVENT_COLUMNS = sorted(sources_of(EventSerializer) - {"decisions"})

_DECIDED = ("event_id", "trigger_id", "trigger__name", "decision", "code", "clause", "run_id")


def with_decisions(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds the decisions to each event, in one query."""
    found = defaultdict(list)
    ids = [event["id"] for event in events]
    for row in EventDecision.objects.filter(event_id__in=ids).order_by("id").values(*_DECIDED):
        found[row["event_id"]].append(row)
    return [{**event, "decisions": found[event["id"]]} for event in events]


def events_in_order(ids: Sequence[UUID]) -> list[dict[str, Any]]:
    """Returns these events in the order of the ids, without those that are pruned."""
    rows = {row["id"]: row for row in Event.objects.filter(id__in=ids).values(*_EVENT_COLUMNS)}
    return [rows[id_] for id_ in ids if id_ in rows]


def event_in_full(event_id: UUID) -> dict[str, Any]:
    """Returns one event as a dict for EventDetailSerializer. Raises Event.DoesNotExist."""
    (event,) = with_decisions([Event.objects.values(*_EVENT_COLUMNS, "body").get(id=event_id)])
    return event


# The most bytes of an event's body.
MAX_EVENT_BYTES = 256 * 1024


class SourceViewSet(ResourceViewSet):
    tag = "Events"
    resource = SOURCES
    body = SourceBody
    serializer = SourceSerializer
    filters = RecentFilters
    example = {
        "name": "Our repository",
        "scheme": "github",
        "secrets": ["a-secret-of-your-own"],
    }
    change = {"secrets": ["a-newer-secret-of-yours", "a-secret-of-your-own"]}

    def rows(self) -> QuerySet[Any, Any]:
        rows: QuerySet[Any, Any] = SOURCES.live.values(*self.columns, "hmac")
        return rows

    def shown(self, rows: list[Any]) -> Any:
        return SourceRowSerializer(with_history(rows), many=True).data

    def with_recent(self, shown: list[Any]) -> Any:
        return with_hours(shown)

    def one(self, row_id: UUID) -> Any:
        return with_hours([super().one(row_id)])[0]


class HookBody(Body):
    """Any JSON, as the sender makes it."""


class HookViewSet(ApiViewSet):
    """Takes the events of sources. A sender has no credentials of ours, but signs its requests."""

    tag = "Events"
    authentication_classes = ()
    permissions = {"receive": IsPublic}

    @Operation(
        "POST /hooks/{sourceId}",
        id="receiveEvent",
        summary="Send an event",
        body=HookBody,
        answers={
            202: answer(
                "Received",
                "The event that was received.",
                id=serializers.UUIDField(),
            ),
            200: answer(
                "Challenge", "What Slack wants to hear.", challenge=serializers.CharField()
            ),
        },
    )
    def receive(self, request: Request, source_id: UUID) -> Response:
        # DRF's parsers are passed over, because a sender may name any type of content.
        body: bytes = request._request.body
        if len(body) > MAX_EVENT_BYTES:
            receiving.refuse_large(source_id, by_address(request))
            raise BodyTooLarge(f"An event must not be over {MAX_EVENT_BYTES // 1024} KiB.")
        hold = partial(hold_memory, request, body, receiving.MAX_CONTAINERS)
        delivery = receiving.Delivery(source_id, request.headers, body, by_address(request), hold)
        told = receiving.receive(delivery)
        return Response(told, status=202 if "id" in told else 200)


class EventPaginator(KeysetPaginator):
    time_field = "received_at"


class DecidedPaginator(EventPaginator):
    """Pages of the events about which something was decided, from their decisions. An index has the decisions of one
    kind in the order of the list, so that no event is read that the page does not show.
    """

    id_field = "event_id"
    # Several triggers may have decided differently about one event.
    shared = True


class EventFilters(ApiFilterSet):
    """The filters of a source's events, or of their decisions if `decision` is given."""

    decision = WordsFilter(field_name="decision", choices=EventDecided.values)
    to = EndFilter(field_name="received_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="received_at", lookup_expr="gte")


class EnvironmentEventFilters(EventFilters):
    sourceId = IdFilter(field_name="source_id", of=["triggers.EventSource"])


class EnvironmentSourceEventViewSet(TenantViewSet):
    tag = "Events"
    permissions = {"list": IsOperator}

    @Operation(
        "GET /environments/{environmentId}/events",
        id="listEnvironmentEvents",
        summary="List the events of all sources",
        items=EventSerializer,
        filters=EnvironmentEventFilters,
    )
    @from_replica
    def list(self, request: Request, environment_id: UUID) -> Response:
        of = {"environment_id": usual(environment_id), "source__isnull": False}
        return _page(request, self, EnvironmentEventFilters, of)


class SourceEventViewSet(TenantViewSet):
    row = SOURCES.row
    tag = "Events"
    permissions = {"list": IsOperator}

    @Operation(
        "GET /sources/{sourceId}/events",
        id="listEvents",
        summary="List a source's events",
        items=EventSerializer,
        filters=EventFilters,
    )
    @from_replica
    def list(self, request: Request, source_id: UUID) -> Response:
        return _page(request, self, EventFilters, {"source_id": usual(source_id)})


class EventViewSet(TenantViewSet):
    row = ("event_id", "SELECT id, environment_id FROM event")
    tag = "Events"
    permissions = {"retrieve": IsOperator, "replay": IsOperator}

    @Operation(
        "GET /events/{eventId}",
        id="getEvent",
        summary="Get an event",
        answers={200: EventDetailSerializer},
    )
    def retrieve(self, request: Request, event_id: UUID) -> Any:
        return event_in_full(event_id)

    @Operation(
        "POST /events/{eventId}/replay",
        id="replayEvent",
        summary="Decide an event anew",
        body=NoBody,
        answers={201: EventDetailSerializer},
    )
    def replay(self, request: Request, event_id: UUID) -> Any:
        return event_in_full(receiving.replay_event(event_id=event_id, actor=actor_of(request)))


def _page(
    request: Request, view: TenantViewSet, filters: type[EventFilters], of: dict[str, Any]
) -> Response:
    """Answers with a page of the events that are `of` a source or an environment."""
    decided = EventDecision.objects.filter(**of).values("received_at", "event_id")
    environment_id = view.access.environment_id
    read = filters.read(decided.distinct(), request, environment_id=environment_id)
    if not read.values["decision"]:
        rows = Event.objects.filter(**of).values(*_EVENT_COLUMNS)
        of_list = filters.read(rows, request).qs
        return view.page_shown(request, of_list, _shown, paginator=EventPaginator)
    return view.page_shown(
        request,
        read.parts,
        lambda page: _shown(events_in_order([row["event_id"] for row in page])),
        paginator=DecidedPaginator,
    )


def _shown(events: list[dict[str, Any]]) -> Any:
    return EventSerializer(with_decisions(events), many=True).data
