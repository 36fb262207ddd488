"""What a delivery sends, and what follows when it was delivered or given up (SPEC §7)."""

from collections.abc import Sequence
from typing import Any

from pipedai.crypto import CannotOpen
from pipedai.events import SYSTEM, Event, emit
from pipedai.outgoing import Attempt, CannotSend, Kind, Post, SendStatus, signed_post
from pipedai.sql import Row
from triggers import secrets
from triggers.models import Delivery, DeliveryAttempt
from workspaces.encryption.keys import WrappedKey

# The error that an attempt shows to the owner of the trigger if the secret can't be decrypted.
SECRET_DOES_NOT_OPEN = "the webhook's secret does not open"  # noqa: S105

# The audit action for each status in which a delivery ends. Attempts have no audit action of their own.
_ACTIONS = {SendStatus.DELIVERED: "webhook.delivered", SendStatus.DEAD: "webhook.failed"}


def _message(delivery: Row) -> Post:
    """If the secret can't be decrypted, the attempt fails, because the message must not go unsigned."""
    try:
        secret = _secret(delivery)
    except CannotOpen:
        raise CannotSend(SECRET_DOES_NOT_OPEN) from None
    return signed_post(
        delivery["url"],
        message_id=delivery["message_id"],
        body=delivery["body"],
        secret=secret,
        now=delivery["claimed_at"],
    )


def _secret(delivery: Row) -> str | None:
    if delivery["webhook_secret"] is None:
        return None
    return secrets.open_webhook_secret(
        delivery["environment_id"],
        delivery["trigger_id"],
        bytes(delivery["webhook_secret"]),
        WrappedKey.of(delivery),
    )


def _tell_ends(attempts: Sequence[Attempt]) -> None:
    emit(*(_end(attempt) for attempt in attempts if attempt.status in _ACTIONS))


def _end(attempt: Attempt) -> Event:
    delivery, answer = attempt.row, attempt.answer
    metadata: dict[str, Any] = {
        "triggerId": str(delivery["trigger_id"]),
        "runId": delivery["run_id"] and str(delivery["run_id"]),
        "host": delivery["host"],
        "attempts": attempt.count,
        "statusCode": answer.status_code,
        "error": answer.error,
    }
    action, environment_id = _ACTIONS[attempt.status], delivery["environment_id"]
    return Event(action, SYSTEM, environment_id, "delivery", delivery["id"], metadata)


WEBHOOKS = Kind(
    "webhook",
    Delivery,
    DeliveryAttempt,
    _message,
    _tell_ends,
    tenants="environment",
    # The secret is the one that the trigger has when the delivery is sent.
    reads="t.webhook_secret, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id",
    joins="JOIN trigger t ON t.id = d.trigger_id LEFT JOIN data_key k ON k.id = t.webhook_key_id",
    # Three quarters of the shares are for hosts that have not answered yet, so that dead hosts delay no others.
    shares=128,
    per_host=4,
    recorders=2,
    # Several messages may be recorded at once, because their events lock incidents in the order of ids.
    recorded_at_once=32,
)
