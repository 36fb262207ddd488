"""Chooses whose pages are measured: those of the busiest environment, and of its busiest trigger and worker."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connection

from accounts.models import User
from pipedai.api import tokens
from triggers.models import Trigger
from workers.models import Worker
from workspaces.models import Environment

_BUSIEST = """
SELECT r.{column} AS id FROM {table} r WHERE {where} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1
"""


@dataclass(frozen=True, slots=True, repr=False)
class Subjects:
    """The rows that the pages are about. `worker_token` is a new token of the worker."""

    owner: User
    environment: Environment
    trigger_id: UUID  # an enabled trigger of the worker
    hooked_trigger_id: UUID  # the trigger with the most deliveries
    scheduled_trigger_id: UUID  # the trigger with the most ticks
    worker_id: UUID
    worker_token: str
    run_id: UUID  # the newest run of the trigger
    key_id: UUID


def choose() -> Subjects:
    """Choose the subjects. This gives the worker a token that is known, and room for more runs."""
    environment = Environment.objects.select_related("workspace").get(
        id=_one("run", "environment_id")
    )
    of_it = f"r.environment_id = '{environment.id}'"
    worker_id = _one("run", "worker_id", f"{of_it} AND r.worker_id IS NOT NULL")
    of_worker = Trigger.objects.filter(worker_id=worker_id, deleted_at__isnull=True)
    enabled = ", ".join(f"'{each}'" for each in of_worker.values_list("id", flat=True))
    trigger_id = _one("run", "trigger_id", f"{of_it} AND r.trigger_id IN ({enabled})")
    Trigger.objects.filter(id=trigger_id).update(enabled=True)
    token = tokens.mint("wkt")
    Worker.objects.filter(id=worker_id).update(
        token_digest=token.digest, max_concurrency=50, disabled_at=None
    )
    newest = f"SELECT id FROM run WHERE trigger_id = '{trigger_id}' ORDER BY queued_at DESC LIMIT 1"
    owner = environment.workspace.created_by
    assert owner is not None
    return Subjects(
        owner=owner,
        environment=environment,
        trigger_id=trigger_id,
        hooked_trigger_id=_one("delivery", "trigger_id", of_it),
        scheduled_trigger_id=_one("tick", "trigger_id", of_it),
        worker_id=worker_id,
        worker_token=token.value,
        run_id=_value(newest),
        key_id=environment.api_keys.filter(kind="pwk").values_list("id", flat=True)[0],
    )


@cache
def middle(table: str, column: str, where: str = "true") -> Any:
    """Return the median of a column over the rows of a condition, or None without rows."""
    return _value(
        f"SELECT {column} FROM {table} WHERE {where} ORDER BY {column} DESC"
        f" OFFSET (SELECT count(*) / 2 FROM {table} WHERE {where}) LIMIT 1"
    )


@cache
def quarters(table: str, column: str, where: str) -> tuple[datetime, datetime]:
    """Return the column's first and third quartile over the rows of a condition."""
    found: list[datetime] = _value(
        f"SELECT percentile_disc(ARRAY[0.25, 0.75]) WITHIN GROUP (ORDER BY {column}) FROM {table} WHERE {where}"
    )
    return found[0], found[1]


def _one(table: str, column: str, where: str = "true") -> Any:
    return _value(_BUSIEST.format(table=table, column=column, where=where))


def _value(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    return row[0] if row else None
