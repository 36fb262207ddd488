"""Queues webhook deliveries when a run ends or a user asks, and sends them. The API schema has the message, too."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, or_not_found
from pipedai.api.renderers import compact_json
from pipedai.api.schema import reference
from pipedai.api.schema.operation import JSON, Schema
from pipedai.crypto import CannotOpen
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from pipedai.outgoing.kinds import Attempt, CannotSend, Kind, SendStatus
from pipedai.outgoing.posts import Post, host_of, signed_post
from pipedai.sql import Row, database_now, fetch_one
from triggers.locks import hold_trigger_environment
from triggers.models import Delivery, DeliveryAttempt
from triggers.models.run import duration_ms
from triggers.models.trigger import WEBHOOK_SECRET
from triggers.states import TERMINAL
from workspaces.encryption.keys import unseal_row

# Reads the delivery that is to be repeated. The lock keeps that delivery and its run from being pruned before the new
# delivery is written.
_OLD = "SELECT run_id, message_id, body FROM delivery WHERE id = %(id)s FOR KEY SHARE"
_TRIGGER = """
SELECT environment_id, webhook_url FROM trigger WHERE id = %(id)s AND deleted_at IS NULL FOR SHARE
"""


def queue_deliveries(ended: Iterable[Row]) -> None:
    """Queues one delivery for each run with a `webhook_url`, in one statement. Rows need `error_message` as well."""
    told = (run for run in ended if run["webhook_url"])
    Delivery.objects.bulk_create(
        _delivery(
            run["environment_id"],
            run["trigger_id"],
            run["webhook_url"],
            run_id=run["id"],
            body=body_of(run),
        )
        for run in told
    )


def redeliver(*, delivery_id: UUID, actor: Actor) -> UUID:
    """Queues a delivery's message once more, to the trigger's present URL, with the same `webhook-id`. Returns the new
    id. Raises NotFound if the delivery or trigger is gone, and Conflict if there is no URL.
    """
    trigger_id = or_not_found(
        Delivery.objects.filter(id=delivery_id).values_list("trigger_id", flat=True).first()
    )
    with transaction.atomic():
        hold_trigger_environment(trigger_id, actor)
        old = or_not_found(fetch_one(_OLD, {"id": delivery_id}))
        return _queue_by_request(
            trigger_id,
            actor,
            "webhook.redelivered",
            {"redeliveryOf": str(delivery_id), "runId": old["run_id"] and str(old["run_id"])},
            run_id=old["run_id"],
            message_id=old["message_id"],
            body=old["body"],
        )


def send_test(*, trigger_id: UUID, actor: Actor) -> UUID:
    """Queues a sample message, about a run with the nil UUID. Raises NotFound, and Conflict if there is no URL."""
    sample = {
        "runId": UUID(int=0),
        "triggerId": trigger_id,
        "status": "succeeded",
        "durationMs": 1000,
        "shortMessage": "This is a test of the webhook.",
        "errorMessage": None,
        "costUsd": "0.01",
        "faultClass": "none",
        "nothingNew": False,
        "endedAt": database_now(),
    }
    with transaction.atomic():
        hold_trigger_environment(trigger_id, actor)
        return _queue_by_request(trigger_id, actor, "webhook.tested", {}, body=compact_json(sample))


def _queue_by_request(
    trigger_id: UUID, actor: Actor, action: str, metadata: dict[str, Any], **values: Any
) -> UUID:
    """Queues a delivery that a user asked for, and emits its event. The transaction keeps the trigger locked."""
    trigger = or_not_found(fetch_one(_TRIGGER, {"id": trigger_id}))
    if trigger["webhook_url"] is None:
        raise Conflict("The trigger has no webhookUrl.", code=ErrorCode.NO_WEBHOOK_URL)
    delivery = _delivery(trigger["environment_id"], trigger_id, trigger["webhook_url"], **values)
    delivery.save(force_insert=True)
    about = {"triggerId": str(trigger_id), "host": delivery.host, **metadata}
    emit(Event(action, actor, delivery.environment_id, "delivery", delivery.id, about))
    return delivery.id


def _delivery(environment_id: UUID, trigger_id: UUID, url: str, **values: Any) -> Delivery:
    delivery_id = new_id()
    named = {"message_id": f"msg_{delivery_id.hex}", **values}
    return Delivery(
        id=delivery_id,
        environment_id=environment_id,
        trigger_id=trigger_id,
        url=url,
        host=host_of(url),
        **named,
    )


def body_of(run: Row) -> str:
    """Returns the JSON body of the webhook for an ended run. API.md lists its fields."""
    message = {
        "runId": run["id"],
        "triggerId": run["trigger_id"],
        "status": run["status"],
        "durationMs": duration_ms(run),
        "shortMessage": run["short_message"],
        "errorMessage": run["error_message"],
        "costUsd": run["cost_usd"],
        "faultClass": run["fault_class"],
        "nothingNew": run["nothing_new"],
        "endedAt": run["ended_at"],
    }
    # Exactly the bytes of this text are signed and sent.
    return compact_json(message)


# The error that an attempt shows to the owner of the trigger if the secret can't be decrypted.
SECRET_DOES_NOT_OPEN = "the webhook's secret does not open"  # noqa: S105

# The audit action for each status in which a delivery ends. Attempts have no audit action of their own.
_ACTIONS = {SendStatus.DELIVERED: "webhook.delivered", SendStatus.DEAD: "webhook.failed"}


def _message(delivery: Row) -> Post:
    """Returns the signed message. If the secret can't be decrypted, the attempt fails: no message goes unsigned."""
    secret = None
    if delivery["webhook_secret"] is not None:
        try:
            secret = unseal_row(WEBHOOK_SECRET, delivery, delivery["trigger_id"]).decode()
        except CannotOpen:
            raise CannotSend(SECRET_DOES_NOT_OPEN) from None
    return signed_post(
        delivery["url"],
        message_id=delivery["message_id"],
        body=delivery["body"],
        secret=secret,
        now=delivery["claimed_at"],
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
    # The message is signed by the trigger's secret at the time of sending.
    reads="t.webhook_secret, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id",
    joins="JOIN trigger t ON t.id = d.trigger_id LEFT JOIN data_key k ON k.id = t.webhook_key_id",
    # Three quarters of the shares are for hosts that have not answered yet, so that dead hosts delay no others.
    shares=128,
    per_host=4,
    recorders=2,
    # Several messages may be recorded at once, because their events lock incidents in the order of ids.
    recorded_at_once=32,
)

_TEXT: Schema = {"type": "string"}

_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}

_MESSAGE: Schema = {
    "runId": {"type": "string", "format": "uuid", "description": "The nil UUID in a test."},
    "triggerId": {"type": "string", "format": "uuid"},
    "status": {"type": "string", "enum": [status.value for status in TERMINAL]},
    "durationMs": {"type": ["integer", "null"]},
    "shortMessage": _TEXT_OR_NULL,
    "errorMessage": _TEXT_OR_NULL,
    "costUsd": _TEXT_OR_NULL,
    "faultClass": {"$ref": "#/components/schemas/FaultClass"},
    "nothingNew": {"type": "boolean"},
    "endedAt": {"type": "string", "format": "date-time"},
}

# For each header of a webhook: its description, and whether every message has it.
_HEADERS = {
    "webhook-id": ("The same for each attempt: deduplicate by it.", True),
    "webhook-timestamp": ("Unix seconds of this attempt.", True),
    "webhook-signature": ("By Standard Webhooks, if the trigger has a secret.", False),
    "X-Pipedai-Signature": ("`sha256=` and the HMAC-SHA256 of the body, if it has one.", False),
}


def add_webhook(result: Schema, **_: Any) -> Schema:
    """Adds the message that a trigger's `webhookUrl` gets when a run ends. drf-spectacular calls it with the schema."""
    section = reference.section("Webhooks")
    result["components"]["schemas"]["WebhookMessage"] = {
        "type": "object",
        "required": list(_MESSAGE),
        "properties": _MESSAGE,
        "examples": [section.example],
    }
    operation = {
        "operationId": "runEnded",
        "summary": "A run has ended",
        "description": section.prose,
        "tags": ["Webhooks"],
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": always,
                "description": says,
                "schema": _TEXT,
            }
            for name, (says, always) in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/WebhookMessage"}}},
        },
        "responses": {"2XX": {"description": "Taken. Any other answer is not."}},
    }
    return {**result, "webhooks": {"runEnded": {"post": operation}}}
