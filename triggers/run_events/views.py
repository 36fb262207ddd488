"""The endpoints that read and stream the events of a run."""

import re
from uuid import UUID

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.api.pagination import DEFAULT_LIMIT, MAX_LIMIT, MAX_PAGE_BYTES, limit_of
from pipedai.api.renderers import compact_json
from pipedai.api.schema.operation import Operation, answer, query
from pipedai.api.throttling import Rate, Throttle, by_caller
from pipedai.api.views import (
    LAST_EVENT_ID,
    MEDIA_TYPE,
    StreamViewMixin,
    count_stream,
    event_text,
    stream_answer,
    ticket_of,
)
from pipedai.server.memory_budget import room_for_answer
from pipedai.server.ticket import StreamTicket
from triggers import tenancy
from triggers.run_events.reading import news_of_run, page_of_events
from triggers.runs.lifecycle import watch_run
from workspaces.access import IsOperator, TenantViewSet

# The form of an event's number. A number of nine digits fits into the database's column.
_SEQ = re.compile(r"\d{1,9}", re.ASCII)

RunEventSerializer = answer(
    "RunEvent",
    "An event of a run: what its CLI told.",
    seq=serializers.IntegerField(min_value=1),
    at=serializers.DateTimeField(),
    type=serializers.CharField(),
    text=serializers.CharField(allow_null=True),
    data=serializers.JSONField(allow_null=True),
)


class RunEventListViewSet(TenantViewSet):
    row = tenancy.ALL_RUNS
    tag = "Runs"
    permissions = {"list": IsOperator, "watch": IsOperator}
    # Watching changes only what is sent, so it is free of the caller's write rate, and has a rate of its own.
    unmetered = frozenset({"watch"})
    throttles = {"watch": (Throttle(Rate("watch-run", 30, 60), by_caller),)}

    @Operation(
        "GET /runs/{runId}/events",
        id="listRunEvents",
        summary="List a run's events",
        parameters=(
            query(
                "after",
                {"type": "integer", "minimum": 0, "default": 0},
                description="The `seq` of the last event that was read.",
            ),
            query(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                description="How many events the answer has at most.",
            ),
        ),
        answers={
            200: answer(
                "RunEventList",
                "Some events of a run, in the order in which they happened.",
                items=RunEventSerializer(many=True),
                lastSeq=serializers.IntegerField(min_value=0),
                whyNone=serializers.CharField(allow_null=True),
            )
        },
    )
    def list(self, request: Request, run_id: UUID) -> HttpResponse:
        after = request.query_params.get("after", "0")
        if not _SEQ.fullmatch(after):
            raise Invalid({"after": ["Must be a whole number, 0 or more."]})
        page = page_of_events(
            run_id,
            after=int(after),
            limit=limit_of(request, DEFAULT_LIMIT),
            most_bytes=room_for_answer(request, MAX_PAGE_BYTES),
        )
        events = ",".join(event.json for event in page.events)
        rest = f'"lastSeq":{page.last_seq},"whyNone":{compact_json(page.why_none)}'
        return HttpResponse(f'{{"items":[{events}],{rest}}}', content_type="application/json")

    @Operation(
        "POST /runs/{runId}/watch",
        id="watchRun",
        summary="Have a run's events sent as they come",
    )
    def watch(self, request: Request, run_id: UUID) -> None:
        watch_run(run_id=run_id)


class RunEventStreamViewSet(StreamViewMixin, TenantViewSet):
    row = tenancy.ALL_RUNS
    tag = "Runs"
    permissions = {"stream": IsOperator}

    @Operation(
        "GET /runs/{runId}/events/stream",
        id="streamRunEvents",
        summary="Stream a run's events",
        parameters=(LAST_EVENT_ID,),
        answers={200: RunEventSerializer, 204: None},
        media_type=MEDIA_TYPE,
    )
    def stream(self, request: Request, run_id: UUID) -> HttpResponse | Response:
        """Answers with the events that the reader has not. The web process calls it as long as the reader reads."""
        ticket = ticket_of(request, StreamTicket, group=self.access.environment_id)
        count_stream(request, ticket)
        last_read = request.META.get("HTTP_LAST_EVENT_ID", "")
        comes_back = bool(_SEQ.fullmatch(last_read))
        news = news_of_run(ticket, run_id=run_id, begin_after=int(last_read) if comes_back else 0)
        if news.ended_as and comes_back and ticket.asked == 1 and not news.events:
            # A browser's EventSource reconnects after each end of a stream, but not after this answer.
            return Response(status=204)
        told = "".join(event_text(event.json, id_=event.seq) for event in news.events)
        if news.stopped_as:
            told += event_text(compact_json({"status": news.stopped_as}), event="status")
        if news.ended_as:
            told += event_text(compact_json({"status": news.ended_as}), event="end")
        return stream_answer(told)
