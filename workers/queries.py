"""Queries that read workers for the API, as dicts that WorkerSerializer renders."""

from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, Count, F, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Coalesce, Now

from pipedai.api.serializers import sources_of
from triggers.models import Run
from workers.models import ONLINE_WITHIN, PoolMember, Worker
from workers.serializers import WorkerSerializer

# The columns to read: those that WorkerSerializer shows, and `online`, from which it derives the worker's status.
_COLUMNS = sorted(sources_of(WorkerSerializer) | {"online"})

# The query in which `find_visible` looks up a worker and its environment. Deregistered workers are left out.
LIVE_WORKERS = "SELECT id, environment_id FROM worker WHERE deleted_at IS NULL"


def workers() -> QuerySet[Worker, dict[str, Any]]:
    """Returns the workers that are not deregistered, with the computed columns `online`, `disabled`, `approved`,
    `current_run_id` (of a held run), `held_runs` (how many), `limit_ends_at` (NULL if not limited) and `pool_ids`.
    """
    pools = PoolMember.objects.filter(worker_id=OuterRef("id")).order_by("pool_id")
    held = Run.objects.filter(
        environment_id=OuterRef("environment_id"), worker_id=OuterRef("id"), slot__isnull=False
    ).order_by("slot")
    count = held.order_by().values("worker_id").annotate(runs=Count("*")).values("runs")
    rows: QuerySet[Worker, dict[str, Any]] = (
        Worker.objects.filter(deleted_at__isnull=True)
        .annotate(
            workspace_id=F("environment__workspace_id"),
            online=Coalesce(
                Q(last_seen_at__gt=Now() - ONLINE_WITHIN, signed_off_at__isnull=True), False
            ),
            disabled=Q(disabled_at__isnull=False),
            approved=Q(unapproved_since__isnull=True),
            limit_ends_at=Case(When(limited_until__gt=Now(), then="limited_until")),
            pool_ids=ArraySubquery(pools.values("pool_id")),
            current_run_id=Subquery(held.values("id")[:1]),
            held_runs=Coalesce(Subquery(count), 0),
        )
        .values(*_COLUMNS)
    )
    return rows
