"""The endpoint to which a worker sends the events of its run, that is, the output of the CLI."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api import tokens
from pipedai.api.authentication import bearer_token
from pipedai.api.errors import ApiError
from pipedai.api.parsers import TOO_DEEP, EventsJSONParser
from pipedai.api.principal import Principal
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, read_body
from pipedai.api.views import IsSignedIn
from pipedai.events import ActorType
from pipedai.server.outer import LOG
from triggers.run_events.recording import (
    MAX_CALL_BYTES,
    MAX_CALL_EVENTS,
    MAX_TYPE,
    RunEvent,
    append_events,
    make_event,
    store_events,
)
from workers.authentication import (
    VERSION,
    WorkerProtocolViewSet,
    WorkerTokenAuthentication,
    check_size,
)
from workers.presence import sane_word
from workers.protocol.serializers import time_of

# The largest number of an event. The columns of the tables also hold the number after it.
MAX_SEQ = 2**31 - 2


@extend_schema_field(
    {
        "type": "array",
        "maxItems": MAX_CALL_EVENTS,
        "items": {
            "type": "object",
            "required": ["seq", "at", "type"],
            "properties": {
                "seq": {"type": "integer", "minimum": 1, "maximum": MAX_SEQ},
                "at": {"type": "string", "format": "date-time"},
                "type": {"type": "string", "minLength": 1, "maxLength": MAX_TYPE},
                "text": {"type": ["string", "null"]},
                "data": {},
            },
        },
    }
)
class EventsField(serializers.Field[Any, Any, Any, Any]):
    """A list of events. It is read without a serializer for each event, because a worker sends many of them."""

    def to_internal_value(self, data: Any) -> list[RunEvent]:
        return events_of(data)


class EventsBody(Body):
    events = EventsField()


@dataclass(frozen=True, slots=True)
class CallingWorker(Principal):
    """A worker whose token was checked by the statement that stored its events. Nothing else about it was read."""

    type: ClassVar[ActorType] = "worker"


class WorkerRunEventViewSet(WorkerProtocolViewSet):
    permissions = {"store": IsSignedIn}
    # The events of the call, if the fast path has stored them already.
    _appended: Sequence[RunEvent] = ()
    # The number of calls is not limited, because the limits on a run's events already bound it.
    unmetered = frozenset(permissions)
    parser_classes = (EventsJSONParser,)

    # This is a fast path. See docs/decisions/fast-paths.md.
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Tries to store the events by one statement, which also checks the token. Else makes all usual checks."""
        negotiated = self.perform_content_negotiation(request)
        request.accepted_renderer, request.accepted_media_type = negotiated
        self._appended = append_plain_call(request, **kwargs)
        if self._appended:
            # The fast path skipped authentication, so it sets the user whom the access log names.
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
        # The access log writes a call that stored events at level DEBUG only, because there are so many.
        request.META.get("asgi.scope", {}).get(LOG, {})["events"] = len(events)
        return Response({"nextSeq": next_seq})


def append_plain_call(request: Request, worker_id: UUID, run_id: UUID) -> Sequence[RunEvent]:
    """Stores and returns the events of a call in the usual form. For any other, stores and returns none."""
    try:
        token = bearer_token(request)
    except ApiError:
        return ()
    if token is None or tokens.prefix_of(token) != WorkerTokenAuthentication.prefix:
        return ()
    events = _plain_events(request)
    if not events:
        return ()
    version = sane_word(request.META.get("HTTP_X_PIPEDAI_WORKER_VERSION"))
    stored = append_events(
        token_digest=tokens.digest(token),
        worker_id=worker_id,
        version=version,
        run_id=run_id,
        events=events,
    )
    return events if stored else ()


def _plain_events(request: Request) -> list[RunEvent]:
    """Returns the events of the body, or none if the body has not the form in which workers usually send it."""
    meta: Any = request.META
    if (
        request.method != "POST"
        or meta.get("CONTENT_TYPE") != EventsJSONParser.media_type
        or "HTTP_CONTENT_ENCODING" in meta
        or int(meta.get("CONTENT_LENGTH") or 0) > MAX_CALL_BYTES
    ):
        return []
    try:
        body = EventsJSONParser().read(request._request.body)
        return events_of(body.get("events")) if isinstance(body, dict) else []
    except APIException:
        return []


def events_of(data: Any) -> list[RunEvent]:
    if not isinstance(data, list):
        raise serializers.ValidationError("Must be a list.")
    if len(data) > MAX_CALL_EVENTS:
        raise serializers.ValidationError(f"Must not hold more than {MAX_CALL_EVENTS} events.")
    return list(_events(data))


def _events(items: list[Any]) -> Iterator[RunEvent]:
    for place, item in enumerate(items, 1):
        wrong, seq, at = "be an object", None, None
        if isinstance(item, dict):
            seq, at = item.get("seq"), time_of(item.get("at"))
            wrong = _wrong(item, seq, at)
        if wrong:
            raise serializers.ValidationError(f"Event {place} of the list must {wrong}.")
        data = item.get("data")
        assert isinstance(seq, int)
        assert at is not None
        yield make_event(
            seq,
            at=at,
            type_=item["type"],
            text=item.get("text"),
            data=None if data is TOO_DEEP else data,
        )


def _wrong(item: dict[str, Any], seq: Any, at: str | None) -> str:
    """Returns what is wrong with an event as a sentence, or an empty text."""
    if isinstance(seq, bool) or not isinstance(seq, int) or not 1 <= seq <= MAX_SEQ:
        return f"have a whole number from 1 to {MAX_SEQ} as seq"
    if at is None:
        return "have a time with its offset from UTC as at"
    type_ = item.get("type")
    if not isinstance(type_, str) or not 1 <= len(type_) <= MAX_TYPE:
        return f"have a text of 1 to {MAX_TYPE} characters as type"
    if not isinstance(item.get("text"), str | None):
        return "have a text or null as text"
    return ""
