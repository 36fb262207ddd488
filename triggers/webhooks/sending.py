"""Sends claimed webhook deliveries outside of any transaction, and records the results (SPEC §7).

A sender that claims a delivery moves its `next_attempt_at` ahead, so that the delivery comes due again if the sender
dies. The new value identifies the claim: a result is recorded only while the row still has that value. A delivery may
therefore be sent twice, with the same `webhook-id`, but none is forgotten.
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

# This signal tells the metrics of each attempt to send a delivery, with its `answer`, after the attempt has been
# recorded.
attempted = Signal()

# How many seconds pass between one attempt and the next (SPEC §7). If the attempt after the last wait fails too, the
# delivery is given up.
BACKOFF_SECONDS = (10, 60, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600)
JITTER = 0.2
MAX_RETRY_AFTER = timedelta(hours=24)
# The error that an attempt shows to the owner of the trigger if the secret can't be decrypted.
SECRET_DOES_NOT_OPEN = "the webhook's secret does not open"  # noqa: S105

_RECORD = """
UPDATE delivery SET status = %(status)s, next_attempt_at = %(next_attempt_at)s, delivered_at = %(delivered_at)s,
    attempt_count = attempt_count + 1
WHERE id = %(id)s AND status = 'pending' AND next_attempt_at = %(claim)s
RETURNING attempt_count
"""


def send_delivery(delivery: Row) -> Answer:
    """Sends a claimed delivery and returns the answer. It opens no transaction.

    If the secret can't be decrypted, the attempt fails, because the message must not be sent unsigned. A later attempt
    succeeds if an operator has restored the key meanwhile.
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
    """Records the result of an attempt to send a delivery, and when the next attempt is due if there is to be one.

    It changes nothing if another sender has claimed the delivery meanwhile.
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
    """Returns the status that a delivery has after this answer, and the time of the next attempt or None.

    `attempts` is how many attempts there have been, including this one. An answer of 2xx means delivered. After 429,
    5xx or no answer, the delivery is tried again; any other answer is final (SPEC §7).
    """
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
    """Returns the time that a Retry-After header asks for, at most 24 hours ahead; None without a valid header.

    The header has seconds or a date (RFC 9110 §10.2.3).
    """
    text = (retry_after or "").strip()
    latest = now + MAX_RETRY_AFTER
    if text.isascii() and text.isdigit():
        # Digits after the ninth are cut off. Such a number is above the limit of 24 hours all the same.
        seconds = int(text[:9])
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
    """Returns a body as text that PostgreSQL can store. Invalid UTF-8 and NUL characters become U+FFFD."""
    if body is None:
        return None
    return body[:KEPT_BODY_BYTES].decode(errors="replace").replace("\0", "\ufffd")


# The audit action for each status in which a delivery ends. Attempts have no audit action of their own.
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
