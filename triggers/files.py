"""How files describe a trigger."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import F

from pipedai.events import once
from pipedai.sql import database_now
from triggers import services
from triggers.budgets.services import BUDGETS
from triggers.budgets.views import BudgetBody
from triggers.events.listening import entry_of
from triggers.events.sources import SOURCES
from triggers.events.views import SourceBody
from triggers.locks import lock_workers
from triggers.models import REVISED, SECRETS
from triggers.models.trigger import MCP_HEADERS, WEBHOOK_SECRET
from triggers.schedules import cron
from triggers.serializers import LISTENS_TO, TriggerBody
from triggers.services import room_of_creator
from workspaces.files.kinds import (
    OF_ENVIRONMENT,
    Kind,
    Row,
    Secret,
    lock_rows,
    register_kind,
)

# How many of the next due times a plan shows.
_DUE_TIMES = 5
_SCHEDULE = ("schedule", "timezone", "enabled")


# The statements that these services run on runs change nothing that a plan could show. So a rehearsal needs only the
# unfinished runs of triggers that it deletes.
_UNFINISHED = "trigger_id = ANY(%(gone)s) AND ended_at IS NULL"
_REVISIONS = "id IN (SELECT revision_id FROM trigger WHERE id = ANY(%(ids)s))"


def _lock_workers(environment_id: UUID, new: Sequence[Row], changed: Sequence[Row]) -> None:
    """Locks the workers that `create` and `update` of Triggers lock before a trigger, for all triggers at once."""
    if any(each.get("max_concurrent_runs") is not None for each in changed):
        once(("workers", environment_id), lambda: lock_workers(environment_id))
        return
    named = {id_ for each in (*new, *changed) if (id_ := each.get("worker_id")) is not None}
    if named:
        workers = apps.get_model("workers", "Worker")._default_manager
        lock_rows(workers.filter(environment_id=environment_id, id__in=named))


def _due_times(before: Row | None, after: Row) -> dict[str, Any]:
    if before is not None and all(before[name] == after[name] for name in _SCHEDULE):
        return {}
    if after["schedule"] is None or not after["enabled"]:
        return {}
    schedule = cron.parse(after["schedule"], after["timezone"])
    times = [once("now", database_now)]
    for _ in range(_DUE_TIMES):
        times.append(schedule.next_after(times[-1]))
    return {"nextDueAt": times[1:]}


register_kind(
    Kind(
        resource=services.TRIGGERS,
        body=TriggerBody,
        annotated={
            **{name: F(f"revision__{name}") for name in REVISED},
            "on": LISTENS_TO,
        },
        long=("prompt", "output_schema", "before", "approvals", "on"),
        finish=lambda row: {**row, "on": [entry_of(entry) for entry in row["on"]]},
        references={
            **{name: name for name in ("worker", "pool", "connection")},
            "on.source": "source",
            "on.trigger": "trigger",
        },
        late=frozenset({"on"}),
        # A single due time does not describe a lasting state: it would be past when the files are applied again.
        left_out=frozenset({"runOnceAt"}),
        secrets={
            "mcpHeaders": Secret(
                MCP_HEADERS,
                json.loads,
                target="mcp_url",
                lost_with=("mcp_url", "connection_id"),
            ),
            "webhookSecret": Secret(
                WEBHOOK_SECRET,
                bytes.decode,
                target="webhook_url",
                is_sent=False,
                lost_with=("webhook_url",),
            ),
        },
        lock_before=_lock_workers,
        keep=services.keep_triggers,
        count_elsewhere=room_of_creator,
        writes={
            "trigger_revision": _REVISIONS,
            **dict.fromkeys(
                ("trigger", "listener", "worker", "pool", "connection", "event_source", "data_key"),
                OF_ENVIRONMENT,
            ),
            "run": _UNFINISHED,
        },
        remarks=_due_times,
    )
)


register_kind(
    Kind(
        resource=SOURCES,
        body=SourceBody,
        defaults={"hmac": None, "enabled": True},
        secrets={"secrets": Secret(SECRETS, json.loads, stand_in=["a secret that stands in"])},
        writes={"event_source": OF_ENVIRONMENT, "data_key": OF_ENVIRONMENT},
    )
)


register_kind(
    Kind(
        resource=BUDGETS,
        body=BudgetBody,
        references={"trigger": "trigger"},
        writes={"budget": OF_ENVIRONMENT},
    )
)
