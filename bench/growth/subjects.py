"""Chooses whose pages are measured: those of the busiest environment, and of its busiest trigger and worker."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count

from accounts.emails import Email
from accounts.models import User
from accounts.services import create_staff
from pipedai.api import tokens
from pipedai.events import SYSTEM
from triggers.models import Run, Trigger
from workers.models import Worker
from workspaces.models import Environment


@dataclass(frozen=True, slots=True, repr=False)
class Subjects:
    """The rows that the pages are about. `worker_token` is a new token of the worker."""

    owner: User
    staff: User
    environment: Environment
    trigger_id: UUID  # a trigger of the worker
    hooked_trigger_id: UUID  # a trigger with deliveries
    scheduled_trigger_id: UUID  # a trigger with ticks
    worker_id: UUID
    worker_token: str
    run_id: UUID  # the newest run of the trigger


def choose() -> Subjects:
    """Choose the subjects. This gives the worker a token that is known, and room for more runs."""
    environment = Environment.objects.select_related("workspace__created_by").get(
        id=_busiest(Run.objects.all(), "environment_id")
    )
    runs = Run.objects.filter(environment=environment)
    worker_id = _busiest(runs.filter(worker__isnull=False), "worker_id")
    trigger_id = _busiest(runs.filter(worker_id=worker_id), "trigger_id")
    token = tokens.mint("wkt")
    Worker.objects.filter(id=worker_id).update(token_digest=token.digest, max_concurrency=50)
    triggers = Trigger.objects.filter(environment=environment)
    owner = environment.workspace.created_by
    assert owner is not None
    staff = create_staff(
        email=Email("bench-staff@example.com"), password="not-a-real-password", name="Staff", actor=SYSTEM
    )  # fmt: skip
    return Subjects(
        owner=owner,
        staff=staff,
        environment=environment,
        trigger_id=trigger_id,
        hooked_trigger_id=_busiest(runs.filter(deliveries__isnull=False), "trigger_id"),
        scheduled_trigger_id=_busiest(
            runs.filter(trigger__in=triggers.filter(schedule__isnull=False)), "trigger_id"
        ),
        worker_id=worker_id,
        worker_token=token.value,
        run_id=runs.filter(trigger_id=trigger_id).latest("queued_at").id,
    )


@cache
def middle(table: str, column: str, where: str) -> Any:
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


def _busiest(runs: Any, column: str) -> Any:
    """Return the value of the column that most of the runs have."""
    most = runs.values(column).annotate(runs=Count("id")).order_by("-runs", column)
    return most[0][column]


def _value(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    return row[0] if row else None
