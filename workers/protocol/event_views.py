"""The endpoint by which a worker sends what the CLI of its run tells."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.parsers import EventsJSONParser
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import read_body
from pipedai.api.views import IsSignedIn
from pipedai.server.access_log import LOG
from triggers.run_events.event import MAX_CALL_BYTES, RunEvent
from triggers.run_events.recording import store_events
from workers.protocol.access import VERSION, WorkerProtocolViewSet, check_size
from workers.protocol.plain_events import CallingWorker, append_plain_call
from workers.protocol.run_events import EventsBody


class WorkerRunEventViewSet(WorkerProtocolViewSet):
    permissions = {"store": IsSignedIn}
    # The events of the call, if they are stored already.
    _appended: Sequence[RunEvent] = ()
    # A worker sends as many events as its run has; the limits of events bound them.
    unmetered = frozenset(permissions)
    parser_classes = (EventsJSONParser,)

    # See docs/decisions/fast-paths.md.
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Stores most calls by one statement, which also checks the token. If it can't, all checks are made."""
        negotiated = self.perform_content_negotiation(request)
        request.accepted_renderer, request.accepted_media_type = negotiated
        self._appended = append_plain_call(request, **kwargs)
        if self._appended:
            # The access log names the caller.
            request.user = CallingWorker(kwargs["worker_id"])  # type: ignore[assignment]
        else:
            super().initial(request, *args, **kwargs)

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/events",
        id="sendRunEvents",
        summary="Send a run's events",
        body=EventsBody,
        example={
            "events": [
                {"seq": 1, "at": "2026-11-24T15:29:30.123Z", "type": "text", "text": "Reading…"}
            ]
        },
        parameters=(VERSION,),
        answers={
            200: answer(
                "EventsTaken",
                "How far the events of a run have come.",
                nextSeq=serializers.IntegerField(min_value=1),
            )
        },
    )
    def store(self, request: Request, worker_id: UUID, run_id: UUID) -> Response:
        events = self._appended
        if events:
            next_seq = events[-1].seq + 1
        else:
            check_size(request, MAX_CALL_BYTES)
            events = read_body(EventsBody, request)["events"]
            next_seq = store_events(worker_id=worker_id, run_id=run_id, events=events)
        # The access log writes the line of a call that stored events at level DEBUG only.
        request.META.get("asgi.scope", {}).get(LOG, {})["events"] = len(events)
        return Response({"nextSeq": next_seq})
