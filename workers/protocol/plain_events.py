"""Stores the events of a call that has nothing special, by one statement and without DRF's checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from rest_framework.exceptions import APIException
from rest_framework.request import Request

from pipedai.api import tokens
from pipedai.api.authentication import bearer_token
from pipedai.api.errors import ApiError
from pipedai.api.parsers import EventsJSONParser
from pipedai.api.principal import Principal
from pipedai.events import ActorType
from triggers.run_events.recording import MAX_CALL_BYTES, RunEvent, append_events
from workers.authentication import WorkerTokenAuthentication
from workers.presence import sane_word
from workers.protocol.run_events import events_of


@dataclass(frozen=True, slots=True)
class CallingWorker(Principal):
    """A worker whose token was checked by the statement that stored its events. Nothing else of it was read."""

    type: ClassVar[ActorType] = "worker"


def append_plain_call(request: Request, worker_id: UUID, run_id: UUID) -> Sequence[RunEvent]:
    """Stores the events of a call and returns them. If anything is bad or unusual it returns none and changes nothing,
    and the view decides by its checks.
    """
    digest = _token_digest(request)
    events = _events(request) if digest is not None else []
    if digest is None or not events:
        return ()
    version = sane_word(request.META.get("HTTP_X_PIPEDAI_WORKER_VERSION"))
    stored = append_events(
        token_digest=digest, worker_id=worker_id, version=version, run_id=run_id, events=events
    )
    return events if stored else ()


def _token_digest(request: Request) -> bytes | None:
    try:
        token = bearer_token(request)
    except ApiError:
        return None
    if token is None or tokens.prefix_of(token) != WorkerTokenAuthentication.prefix:
        return None
    return tokens.digest(token)


def _events(request: Request) -> list[RunEvent]:
    """Returns the events of the body, or none if the body or its form is not what workers usually send."""
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
