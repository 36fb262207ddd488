"""The outbox of completion webhooks: a row is written in the transaction that ends the run (SPEC §7)."""

import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from pipedai.api.renderers import JSONEncoder
from pipedai.ids import new_id
from pipedai.sql import Row
from triggers.duration import duration_ms
from triggers.models import Delivery


def queue_deliveries(ended: Iterable[Row]) -> None:
    """Queues one delivery for each ended run whose trigger has a webhook. At most one statement.

    Each row is a run's, with `error_message` and its trigger's `webhook_url`.
    """
    Delivery.objects.bulk_create([_delivery(run) for run in ended if run["webhook_url"]])


def _delivery(run: Row) -> Delivery:
    delivery_id = new_id()
    url = run["webhook_url"]
    return Delivery(
        id=delivery_id,
        environment_id=run["environment_id"],
        trigger_id=run["trigger_id"],
        run_id=run["id"],
        message_id=f"msg_{delivery_id.hex}",
        url=url,
        host=urlsplit(url).hostname or "",
        body=_body(run),
    )


def _body(run: Row) -> str:
    """Exactly the fields of SPEC §7; these very bytes are signed and sent."""
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
    return json.dumps(message, cls=JSONEncoder, ensure_ascii=False, separators=(",", ":"))
