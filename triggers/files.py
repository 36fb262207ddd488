"""How files describe a trigger."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import F

from pipedai.sql import database_now
from triggers import services
from triggers.events.entry_serializers import entry_of
from triggers.locks import lock_workers
from triggers.models import Trigger
from triggers.queries import LISTENS_TO
from triggers.schedules import cron
from triggers.secrets import MCP_HEADERS, WEBHOOK_SECRET
from triggers.serializers import TriggerBody
from workspaces.files.kinds import Kind, Row, Secret, lock_rows, register_kind

# How many of the next due times a plan shows (SPEC §29).
_DUE_TIMES = 5
_SCHEDULE = ("schedule", "timezone", "enabled")


def _lock_workers(environment_id: UUID, values: Sequence[Row]) -> None:
    """Locks the workers that `update_trigger` locks before a trigger, for all triggers at once."""
    if any(each["max_concurrent_runs"] is not None for each in values):
        lock_workers(environment_id)
    else:
        workers = apps.get_model("workers", "Worker")._default_manager
        named = {each["worker_id"] for each in values}
        lock_rows(workers.filter(environment_id=environment_id, id__in=named))


def _due_times(before: Row | None, after: Row) -> dict[str, Any]:
    if before is not None and all(before[name] == after[name] for name in _SCHEDULE):
        return {}
    if after["schedule"] is None or not after["enabled"]:
        return {}
    times = _coming(cron.parse(after["schedule"], after["timezone"]))
    return {"nextDueAt": list(islice(times, _DUE_TIMES))}


def _coming(schedule: cron.Schedule) -> Iterator[datetime]:
    moment = database_now()
    while True:
        yield (moment := schedule.next_after(moment))


register_kind(
    Kind(
        name="trigger",
        model=Trigger,
        body=TriggerBody,
        annotated={
            **{name: F(f"revision__{name}") for name in ("prompt", "model", "output_schema")},
            "on": LISTENS_TO,
        },
        long="prompt",
        finish=lambda row: {**row, "on": [entry_of(entry) for entry in row["on"]]},
        create=services.create_trigger,
        update=lambda id_, **said: services.update_trigger(trigger_id=id_, **said),
        delete=lambda id_, **said: services.delete_trigger(trigger_id=id_, **said),
        references={
            **{name: name for name in ("worker", "pool", "connection")},
            "on.source": "source",
            "on.trigger": "trigger",
        },
        late=frozenset({"on"}),
        # A moment is no state: it would be past when the files are applied again.
        left_out=frozenset({"runOnceAt"}),
        secrets={
            "mcpHeaders": Secret(
                MCP_HEADERS,
                json.loads,
                target="mcp_url",
                lost_with=("mcp_url", "connection_id"),
            ),
            "webhookSecret": Secret(WEBHOOK_SECRET, bytes.decode),
        },
        lock_before=_lock_workers,
        remarks=_due_times,
    )
)
