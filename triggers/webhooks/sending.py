"""Sends claimed webhook deliveries, outside any transaction, and records what came of them (SPEC §7).

Claiming moves a delivery's `next_attempt_at` ahead, to when it is due again if its sender dies; the
value that it is moved to is the claim, and recording is guarded by it. So a delivery may be sent
twice, with the same `webhook-id`, but never forgotten.
"""

import random
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from pipedai import tracing
from pipedai.crypto import CannotOpen
from pipedai.events import SYSTEM, Event, emit
from pipedai.logs import get_logger
from pipedai.outgoing import Answer, post
from pipedai.outgoing.request import KEPT_BODY_BYTES
from pipedai.sql import Row, database_now, fetch_one
from triggers import secrets
from triggers.models import Delivery, DeliveryAttempt
from triggers.webhooks.signatures import webhook_headers
from workspaces.encryption.keys import WrappedKey

log = get_logger(__name__)

# Sent with `answer` for each attempt once it is recorded.
attempted = Signal()

# Between one attempt and the next (SPEC §7); after the last of these a delivery is dead.
BACKOFF_SECONDS = (10, 60, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600)
JITTER = 0.2
MAX_RETRY_AFTER = timedelta(hours=24)
# An attempt's error, for the trigger's owner.
SECRET_DOES_NOT_OPEN = "the webhook's secret does not open"  # noqa: S105

_RECORD = """
UPDATE delivery SET status = %(status)s, next_attempt_at = %(next_attempt_at)s, delivered_at = %(delivered_at)s,
    attempt_count = attempt_count + 1
WHERE id = %(id)s AND status = 'pending' AND next_attempt_at = %(claim)s
RETURNING attempt_count
"""


def send_delivery(delivery: Row) -> Answer:
    """Sends a claimed delivery; holds no transaction.

    If its secret does not open, it must not go out unsigned: the attempt has failed, and the next
    one may find an operator to have brought the key back.
    """
    try:
        secret = _secret(delivery)
    except CannotOpen:
        return Answer(None, 0, SECRET_DOES_NOT_OPEN)
    body = delivery["body"].encode()
    signed = webhook_headers(
        message_id=delivery["message_id"], body=body, secret=secret, now=delivery["claimed_at"]
    )
    headers = {"Content-Type": "application/json", "User-Agent": "PipedAI-Webhooks/1", **signed}
    about = {"server.address": delivery["host"], "pipedai.delivery.id": str(delivery["id"])}
    with tracing.client_span("webhook attempt", about) as span:
        answer = post(delivery["url"], headers=headers, body=body)
        if answer.status_code is not None:
            span.set({"http.response.status_code": answer.status_code})
        if answer.error is not None:
            span.set({"error.type": answer.error})
        return answer


def record_answer(delivery: Row, answer: Answer, *, now: datetime | None = None) -> None:
    """Writes down what came of a claimed delivery, and when it is due again, if it is.

    Changes nothing when another sender has claimed it meanwhile.
    """
    now = now or database_now()
    status, due = verdict(answer, attempts=delivery["attempt_count"] + 1, now=now)
    with transaction.atomic():
        recorded = fetch_one(
            _RECORD,
            {
                "id": delivery["id"],
                "claim": delivery["claim"],
                "status": status.value,
                "next_attempt_at": due,
                "delivered_at": now if status == Delivery.Status.DELIVERED else None,
            },
        )
        if recorded is None:
            log.warning("webhook.overtaken", delivery_id=str(delivery["id"]))
            return
        _keep_attempt(delivery, recorded["attempt_count"], answer)
        if status in _ACTIONS:
            emit(_event(delivery, recorded["attempt_count"], answer, _ACTIONS[status]))
    attempted.send(sender=Delivery, answer=answer)
    log.info(
        "webhook.sent",
        delivery_id=str(delivery["id"]),
        host=delivery["host"],
        status=status.value,
        status_code=answer.status_code,
        error=answer.error,
        duration_ms=answer.duration_ms,
    )


def verdict(
    answer: Answer, *, attempts: int, now: datetime
) -> tuple[Delivery.Status, datetime | None]:
    """What a delivery is after its `attempts`-th answer; and when it is to be sent again, if it is."""
    code = answer.status_code
    if answer.error is None and code is not None:
        if 200 <= code < 300:
            return Delivery.Status.DELIVERED, None
        if code != 429 and code < 500:
            return Delivery.Status.DEAD, None
    if attempts > len(BACKOFF_SECONDS):
        return Delivery.Status.DEAD, None
    jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, hides nothing
    due = now + timedelta(seconds=BACKOFF_SECONDS[attempts - 1] * jitter)
    asked = _asked_for(answer.retry_after, now)
    return Delivery.Status.PENDING, max(due, asked) if asked else due


def _asked_for(retry_after: str | None, now: datetime) -> datetime | None:
    """The time that a Retry-After names, in seconds or as a date (RFC 9110 §10.2.3), no later than in 24 hours."""
    text = (retry_after or "").strip()
    latest = now + MAX_RETRY_AFTER
    if text.isascii() and text.isdigit():
        seconds = int(text[:9])  # what is longer is over 24 h anyway
        return min(now + timedelta(seconds=seconds), latest)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(date.replace(tzinfo=date.tzinfo or UTC), latest)


def _secret(delivery: Row) -> str | None:
    if delivery["webhook_secret"] is None:
        return None
    return secrets.open_webhook_secret(
        delivery["environment_id"],
        delivery["trigger_id"],
        bytes(delivery["webhook_secret"]),
        WrappedKey.of(delivery),
    )


def _keep_attempt(delivery: Row, n: int, answer: Answer) -> None:
    DeliveryAttempt.objects.create(
        environment_id=delivery["environment_id"],
        delivery_id=delivery["id"],
        n=n,
        at=delivery["claimed_at"],
        status_code=answer.status_code,
        duration_ms=answer.duration_ms,
        error=answer.error,
        response_body=_as_text(answer.body),
    )


def _as_text(body: bytes | None) -> str | None:
    """A body as a text column can hold it."""
    if body is None:
        return None
    return body[:KEPT_BODY_BYTES].decode(errors="replace").replace("\0", "\ufffd")


# Once a delivery is settled, and not for each attempt.
_ACTIONS = {
    Delivery.Status.DELIVERED: "webhook.delivered",
    Delivery.Status.DEAD: "webhook.failed",
}


def _event(delivery: Row, attempts: int, answer: Answer, action: str) -> Event:
    metadata: dict[str, Any] = {
        "triggerId": str(delivery["trigger_id"]),
        "runId": delivery["run_id"] and str(delivery["run_id"]),
        "host": delivery["host"],
        "attempts": attempts,
        "statusCode": answer.status_code,
        "error": answer.error,
    }
    return Event(action, SYSTEM, delivery["environment_id"], "delivery", delivery["id"], metadata)
