"""Queues webhook deliveries: in the transaction that ends a run (SPEC §7), or when a user asks for one."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, or_not_found
from pipedai.api.renderers import compact_json
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.outgoing import host_of
from pipedai.sql import Row, database_now, fetch_one
from triggers.locks import hold_trigger_environment
from triggers.models import Delivery
from triggers.models.run import duration_ms

# Reads the delivery that is to be repeated. The lock keeps that delivery and its run from being pruned before the new
# delivery is written.
_OLD = "SELECT run_id, message_id, body FROM delivery WHERE id = %(id)s FOR KEY SHARE"


def queue_deliveries(ended: Iterable[Row]) -> None:
    """Queues one delivery for each run that has a `webhook_url`, in one statement. Rows have `error_message`."""
    Delivery.objects.bulk_create([_of_run(run) for run in ended if run["webhook_url"]])


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
        "endedAt": database_now(),
    }
    with transaction.atomic():
        hold_trigger_environment(trigger_id, actor)
        return _queue_by_request(trigger_id, actor, "webhook.tested", {}, body=compact_json(sample))


def _queue_by_request(
    trigger_id: UUID, actor: Actor, action: str, metadata: dict[str, Any], **values: Any
) -> UUID:
    """Queues what a user asked for, and emits its event. The trigger stays locked until the transaction ends."""
    trigger = or_not_found(
        fetch_one(
            "SELECT environment_id, webhook_url FROM trigger"
            " WHERE id = %(id)s AND deleted_at IS NULL FOR SHARE",
            {"id": trigger_id},
        )
    )
    if trigger["webhook_url"] is None:
        raise Conflict("The trigger has no webhookUrl.", code=ErrorCode.NO_WEBHOOK_URL)
    delivery = _delivery(trigger["environment_id"], trigger_id, trigger["webhook_url"], **values)
    delivery.save(force_insert=True)
    emit(
        Event(
            action,
            actor,
            delivery.environment_id,
            "delivery",
            delivery.id,
            {"triggerId": str(trigger_id), "host": delivery.host, **metadata},
        )
    )
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


def _of_run(run: Row) -> Delivery:
    return _delivery(
        run["environment_id"],
        run["trigger_id"],
        run["webhook_url"],
        run_id=run["id"],
        body=body_of(run),
    )


def body_of(run: Row) -> str:
    """Returns the JSON body of the webhook for an ended run. It has exactly the fields of SPEC §7."""
    message = {
        "runId": run["id"],
        "triggerId": run["trigger_id"],
        "status": run["status"],
        "durationMs": duration_ms(run),
        "shortMessage": run["short_message"],
        "errorMessage": run["error_message"],
        "costUsd": run["cost_usd"],
        "faultClass": run["fault_class"],
        "endedAt": run["ended_at"],
    }
    # Exactly the bytes of this text are signed and sent.
    return compact_json(message)
