"""Takes what sources send. It checks the signature, the rate and duplicates, and then writes the event and its runs."""

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from rest_framework.exceptions import ParseError

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound, Unauthenticated, Unavailable
from pipedai.api.parsers import parse_json, replace_unstorable
from pipedai.api.throttling import Buckets, Rate, TooManyRequests, too_many_requests
from pipedai.crypto import CannotOpen
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.server.memory_budget import note_sender
from pipedai.sql import Row, execute, execute_later, fetch_one, fetch_row
from triggers import models
from triggers.events.deciding import decide
from triggers.events.refusals import count_refusal, tell_source
from triggers.events.sources import is_signed, why_refused
from triggers.models import SECRETS, requesters_of
from triggers.states import Refusal, Scheme
from workspaces.encryption import keys

_WEEK, _YEAR = 7, 365


@dataclass(frozen=True, slots=True)
class Identity:
    """`type` and `given_id` are as the sender names them, or None. `key` is the SHA-256 by which a second delivery of
    the event is recognised for `key_days` days; None if nothing in what the sender signed tells events apart.
    """

    type: str | None
    given_id: str | None
    key: bytes | None
    key_days: int


def identity_of(
    scheme: str,
    *,
    options: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    body: bytes,
    document: Any,
) -> Identity:
    """Returns the identity of a request whose signature holds. `document` is its body, parsed."""
    members = document if isinstance(document, dict) else {}
    kind = members.get("type")
    match scheme:
        case Scheme.GITHUB:
            # The body is the key, because GitHub does not sign the id: a delivery could be sent again under another.
            delivery = headers.get("x-github-delivery")
            return _identity(headers.get("x-github-event"), delivery, body, _YEAR)
        case Scheme.HMAC:
            stamp = (options or {}).get("timestampHeader")
            if stamp is None:
                return _identity(kind, None, body, _YEAR)
            signed = headers.get(stamp, "").encode("latin-1", "replace") + b"." + body
            return _identity(kind, None, signed, _WEEK)
        case Scheme.GITLAB:
            kind, given = headers.get("x-gitlab-event"), headers.get("idempotency-key")
        case Scheme.BEARER:
            given = headers.get("idempotency-key")
        case Scheme.STANDARD:
            given = headers.get("webhook-id")
        case Scheme.SLACK:
            inner = members.get("event")
            kind = (inner.get("type") if isinstance(inner, dict) else None) or kind
            given = members.get("event_id")
        case _:
            # Only Stripe is left.
            given = members.get("id")
    return _identity(kind, given, given, _WEEK)


def _identity(kind: Any, given: Any, key: Any, days: int) -> Identity:
    """Returns the identity from values of any type. One that is no text, or an empty one, counts as absent."""
    if isinstance(key, str):
        key = key.encode(errors="replace")
    digest = hashlib.sha256(key).digest() if isinstance(key, bytes) and key else None
    return Identity(_text(kind, 200), _text(given, 255), digest, days)


def _text(value: Any, most: int) -> str | None:
    return replace_unstorable(value)[:most] if isinstance(value, str) and value else None


# How many lists and objects a body may have.
MAX_CONTAINERS = 20_000

# How many signed requests of a source, and how many other requests from an address, each process takes in a time. A
# request counts only after its signature was checked, so that nobody without the secret can use up the rate of a
# source.
SIGNED = Rate("events-of-source", limit=50, seconds=1)

UNSIGNED = Rate("unsigned-events", limit=50, seconds=1)

_BURST = 200

_signed = Buckets(SIGNED, _BURST, most=100_000)

_unsigned = Buckets(UNSIGNED, _BURST, most=10_000)

_SOURCE = """
SELECT s.id AS source_id, s.enabled, s.environment_id, e.workspace_id, s.name, s.scheme, s.hmac::json AS hmac,
    s.secrets, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id,
    extract(epoch FROM statement_timestamp())::float AS now
FROM event_source s JOIN data_key k ON k.id = s.secrets_key_id JOIN environment e ON e.id = s.environment_id
WHERE s.id = %(source_id)s AND s.deleted_at IS NULL
"""

# Inserts the key, before the event and in the same transaction. If several equal deliveries come at the same moment,
# one of them inserts the key. The others wait until its transaction ends, and then find its row.
_REMEMBER = """
INSERT INTO event_key (source_id, key, environment_id, event_id, expires_at)
VALUES (%(source_id)s, %(key)s, %(environment_id)s, %(id)s, statement_timestamp() + %(key_days)s * interval '1 day')
ON CONFLICT (source_id, key) DO UPDATE SET event_id = excluded.event_id, expires_at = excluded.expires_at
WHERE event_key.expires_at <= statement_timestamp()
RETURNING event_id
"""

_RECALL = "SELECT event_id FROM event_key WHERE source_id = %(source_id)s AND key = %(key)s"

_COUNT_DUPLICATE = "UPDATE event SET duplicates = duplicates + 1 WHERE id = %(event_id)s"

_KEEP = """
INSERT INTO event (
    id, environment_id, source_id, type, given_id, body, duplicates, replay_of_id, requested_by, received_at,
    decided_at)
VALUES (%(id)s, %(environment_id)s, %(source_id)s, %(type)s, %(given_id)s, %(body)s::json, 0, %(replay_of_id)s,
    %(requested_by)s, statement_timestamp(), statement_timestamp())
RETURNING received_at
"""

# Leaves the event to the scheduler.
_PUT_OFF = "UPDATE event SET decided_at = NULL WHERE id = %(id)s"

# For how many seconds of its thread's CPU time an event tries clauses in a web process, because other customers'
# requests wait meanwhile. The clauses of one more trigger may take some 15 ms.
_CPU_SECONDS = 0.03

# Notes once a second that an event came. It is the last statement of a transaction and skips a locked row, so that
# events of a source don't wait for each other, and a user who changes the source does not wait for events.
_NOTE = """
UPDATE event_source SET last_event_at = %(at)s
WHERE id = (
    SELECT id FROM event_source
    WHERE id = %(source_id)s AND (last_event_at IS NULL OR last_event_at < %(at)s - interval '1 second')
    FOR NO KEY UPDATE SKIP LOCKED)
"""

# Reads the event that is to be decided again. The lock keeps that event from being pruned before the new one, which
# refers to it, is written.
_REPLAYED = """
SELECT e.environment_id, e.source_id, e.type, e.given_id, e.body, s.name AS source_name
FROM event e LEFT JOIN event_source s ON s.id = e.source_id WHERE e.id = %(event_id)s FOR KEY SHARE OF e
"""


# It has no `repr`, because the headers of some schemes hold the secret itself.
@dataclass(frozen=True, slots=True, repr=False)
class Delivery:
    """A request to the hook of a source, as it was sent from `address`. `hold_memory` is called before the body is
    parsed, once its signature has been looked at.
    """

    source_id: UUID
    headers: Mapping[str, str]
    body: bytes
    address: str
    hold_memory: Callable[[], None] = lambda: None


def receive(delivery: Delivery) -> dict[str, Any]:
    """Takes a delivery and returns the answer: the event's id, that of the first one for a duplicate, or Slack's
    challenge. Raises Unauthenticated, ParseError, TooManyRequests, and Unavailable if the secrets can't be opened.
    """
    source = _source_of(delivery)
    try:
        delivery.hold_memory()
        document = replace_unstorable(parse_json(delivery.body))
        if settings.THROTTLES_ENABLED:
            _take(SIGNED, _signed, delivery.source_id)
    except (ParseError, TooManyRequests) as error:
        is_malformed = isinstance(error, ParseError)
        count_refusal(source, Refusal.MALFORMED if is_malformed else Refusal.TOO_MANY)
        raise
    if (challenge := _challenge(source, document)) is not None:
        return {"challenge": challenge}
    identity = identity_of(
        source["scheme"],
        options=source["hmac"],
        headers=delivery.headers,
        body=delivery.body,
        document=document,
    )
    return {"id": _take_once(source, identity, document)}


def replay_event(*, event_id: UUID, actor: Actor) -> UUID:
    """Decides a source's event again, as a new event, and returns its id. Raises NotFound, and Conflict if the event is
    the end of a run.
    """
    with transaction.atomic():
        row = fetch_one(_REPLAYED, {"event_id": event_id})
        if row is None:
            raise NotFound
        if row["source_id"] is None:
            raise Conflict(
                "The event is the end of a run: run the run again that it started.",
                code=ErrorCode.EVENT_OF_RUN,
            )
        replay_id = new_id()
        body = row.pop("body")
        source_name = row.pop("source_name")
        kept = {**row, "id": replay_id, "replay_of_id": event_id}
        _keep(kept, body, source_name, requested_by=actor.id)
        metadata = {"replayOf": str(event_id), "sourceId": str(row["source_id"])}
        emit(Event("event.replayed", actor, row["environment_id"], "event", replay_id, metadata))
    return replay_id


def _source_of(delivery: Delivery) -> Row:
    """Returns the source that signed the delivery. An unknown source, a disabled one and a bad signature all get the
    same answer, after the same comparison, so that a stranger can't tell which sources exist.
    """
    found = fetch_one(_SOURCE, {"source_id": delivery.source_id})
    source = found if found and found["enabled"] else None
    known = source or {"scheme": Scheme.GITHUB, "hmac": None, "now": 0.0}
    if (
        is_signed(
            known["scheme"],
            options=known["hmac"],
            secrets=_secrets_of(delivery.source_id, source),
            headers=delivery.headers,
            body=delivery.body,
            now=known["now"],
        )
        and source is not None
    ):
        note_sender(delivery.source_id, delivery.address, source["workspace_id"])
        return source
    if found is not None:
        why = why_refused(source, delivery.headers) if source else Refusal.DISABLED
        count_refusal(found, why)
    _check_unsigned(delivery.address)
    raise Unauthenticated(
        "There is no such source, or its signature is missing, wrong or too old.",
        code=ErrorCode.UNAUTHENTICATED,
    )


def _secrets_of(source_id: UUID, source: Row | None) -> list[str]:
    """Returns the opened secrets. An unknown source gets a random one, to compare for as long. Raises Unavailable."""
    if source is None:
        return [secrets.token_hex()]
    try:
        opened = keys.unseal_row(SECRETS, source, source_id)
    except CannotOpen:
        raise Unavailable(
            "The source's secrets can't be opened at the moment. The operators have been alarmed.",
            code=ErrorCode.ENCRYPTION_UNAVAILABLE,
            retry_after=60,
        ) from None
    found: list[str] = json.loads(opened)
    return found


def refuse_large(source_id: UUID, address: str) -> None:
    """Counts a request whose body is too large to look at its signature. Raises TooManyRequests."""
    _check_unsigned(address)
    if (source := fetch_one(_SOURCE, {"source_id": source_id})) is not None:
        count_refusal(source, Refusal.TOO_LARGE)


def _check_unsigned(address: str) -> None:
    if settings.THROTTLES_ENABLED:
        _take(UNSIGNED, _unsigned, address)


def _take(rate: Rate, buckets: Buckets, key: UUID | str) -> None:
    if wait := buckets.take(key, now=time.monotonic()):
        raise too_many_requests(rate, math.ceil(wait))


def _challenge(source: Row, document: Any) -> str | None:
    """Returns the answer that Slack expects when a user enters the hook's URL there; None for any other request."""
    if source["scheme"] != Scheme.SLACK or not isinstance(document, dict):
        return None
    challenge = document.get("challenge")
    is_asked = document.get("type") == "url_verification" and isinstance(challenge, str)
    return challenge if is_asked else None


def _take_once(source: Row, identity: Identity, document: Any) -> UUID:
    """Stores and decides the event, unless it came before. Returns the id of the event that came first."""
    new = new_id()
    event = {
        "id": new,
        "environment_id": source["environment_id"],
        "source_id": source["source_id"],
        "type": identity.type,
        "given_id": identity.given_id,
        "replay_of_id": None,
    }
    key = {**event, "key": identity.key, "key_days": identity.key_days}
    with transaction.atomic():
        if identity.key is not None and fetch_one(_REMEMBER, key) is None:
            first = fetch_row(_RECALL, key)
            execute(_COUNT_DUPLICATE, first)
            event_id: UUID = first["event_id"]
            return event_id
        at = _keep(event, document, source["name"])
        execute_later(_NOTE, {"source_id": source["source_id"], "at": at})
        tell_source(source)
    return new


def _keep(
    event: Row, document: Any, source_name: str, *, requested_by: UUID | None = None
) -> datetime:
    """Stores an event of a source and decides it, in the caller's transaction, or leaves the decision to the scheduler
    if the clauses take too long. Returns when the event came. `requested_by` is the user or API key that replays it.
    """
    body = json.dumps(document, ensure_ascii=False)
    stored = fetch_row(_KEEP, {**event, "body": body, "requested_by": requested_by})
    at: datetime = stored["received_at"]
    source = models.EventSource(id=event["source_id"], name=source_name)
    kept = models.Event(**event, source=source, body=document, received_at=at)
    requesters = requesters_of(requested_by, None)
    if not decide(kept, requesters=requesters, cpu_seconds=_CPU_SECONDS):
        execute(_PUT_OFF, event)
    return at
