"""The endpoints of sources and events: list, make, change and delete sources, take events, read and replay them."""

from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError
from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from pipedai.api.pagination import KeysetPaginator, usual
from pipedai.api.parsers import hold_memory
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, NoBody, read_body, sources_of
from pipedai.api.throttling import by_address
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.replica.reading import from_replica
from triggers.events import queries, receiving
from triggers.events.serializers import (
    EventDetailSerializer,
    EventSerializer,
    SourceBody,
    SourceSerializer,
)
from triggers.events.sources import SOURCES
from triggers.filters import check_tenant_ids
from triggers.models import Event, EventDecision
from triggers.states import EventDecided
from workspaces.access import IsOperator, TenantViewSet
from workspaces.resource_views import ResourceViewSet

_COLUMNS = sorted({*sources_of(SourceSerializer), "hmac"})
# The most bytes of an event's body (SPEC §25).
MAX_EVENT_BYTES = 256 * 1024


class SourceViewSet(ResourceViewSet):
    tag = "Events"
    resource = SOURCES
    body = SourceBody
    serializer = SourceSerializer
    example = {
        "name": "Our repository",
        "scheme": "github",
        "secrets": ["a-secret-of-your-own"],
    }
    change = {"secrets": ["a-newer-secret-of-yours", "a-secret-of-your-own"]}

    @classmethod
    def rows(cls) -> QuerySet[Any, Any]:
        rows: QuerySet[Any, Any] = SOURCES.live.values(*_COLUMNS)
        return rows


class HookBody(Body):
    """Any JSON, as the sender makes it."""


class TooLarge(ApiError):  # noqa: N818 - named as what it answers
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE

    def __init__(self) -> None:
        super().__init__(
            f"An event must not be over {MAX_EVENT_BYTES // 1024} KiB.",
            code=ErrorCode.BODY_TOO_LARGE,
        )


class HookViewSet(ApiViewSet):
    """The service's door for strangers: whoever can sign as the source may send events."""

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
            raise TooLarge
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
    sourceId = IdFilter(field_name="source_id")  # noqa: N815 - its name in the API


class EnvironmentSourceEventViewSet(TenantViewSet):
    tag = "Events"
    permissions = {"list": IsOperator}
    filter_names = EnvironmentEventFilters.names()

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
        check_tenant_ids(
            environment_id, EnvironmentEventFilters.read(Event.objects.none(), request)
        )
        return _page(request, self, EnvironmentEventFilters, **of)


class SourceEventViewSet(TenantViewSet):
    row = SOURCES.row
    tag = "Events"
    permissions = {"list": IsOperator}
    filter_names = EventFilters.names()

    @Operation(
        "GET /sources/{sourceId}/events",
        id="listEvents",
        summary="List a source's events",
        items=EventSerializer,
        filters=EventFilters,
    )
    @from_replica
    def list(self, request: Request, source_id: UUID) -> Response:
        return _page(request, self, EventFilters, source_id=usual(source_id))


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
    def retrieve(self, request: Request, event_id: UUID) -> Response:
        return Response(EventDetailSerializer(queries.event_in_full(event_id)).data)

    @Operation(
        "POST /events/{eventId}/replay",
        id="replayEvent",
        summary="Decide an event anew",
        body=NoBody,
        answers={201: EventDetailSerializer},
    )
    def replay(self, request: Request, event_id: UUID) -> Response:
        read_body(NoBody, request)
        replay_id = receiving.replay_event(event_id=event_id, actor=actor_of(request))
        return Response(EventDetailSerializer(queries.event_in_full(replay_id)).data, status=201)


def _page(
    request: Request, view: TenantViewSet, filters: type[EventFilters], **of: Any
) -> Response:
    """Returns a page of the events that are `of` a source or an environment."""
    decided = EventDecision.objects.filter(**of).values("received_at", "event_id")
    read = filters.read(decided.distinct(), request)
    paginator: KeysetPaginator
    if read.values["decision"]:
        paginator = DecidedPaginator()
        decisions = paginator.paginate_parts(read.parts, request, view)
        page = queries.events_in_order([row["event_id"] for row in decisions])
    else:
        rows = Event.objects.filter(**of).values(*queries.COLUMNS)
        paginator = EventPaginator()
        page = paginator.paginate_queryset(filters.read(rows, request).qs, request, view)
    shown = EventSerializer(queries.with_decisions(page), many=True).data
    return paginator.get_paginated_response(shown)
