"""Reads workers for the API, as the dicts that WorkerSerializer renders."""

from typing import Any

from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now

from pipedai.api.serializers import sources_of
from triggers.models import Run
from workers.models import ONLINE_WITHIN, Worker
from workers.serializers import WorkerSerializer

# What the serializer shows is loaded, and what it works a worker's status out of.
_COLUMNS = sorted(sources_of(WorkerSerializer) | {"online"})

# Whose rows they are, for `find_visible`.
LIVE_WORKERS = "SELECT id, environment_id FROM worker WHERE deleted_at IS NULL"


def workers() -> QuerySet[Worker, dict[str, Any]]:
    """The workers that are not deregistered, each with `online`, `disabled`, `approved` and the run that it holds."""
    held = Run.objects.filter(worker_id=OuterRef("id"), slot__isnull=False).order_by("slot")
    rows: QuerySet[Worker, dict[str, Any]] = (
        Worker.objects.filter(deleted_at__isnull=True)
        .annotate(
            workspace_id=F("environment__workspace_id"),
            online=Coalesce(Q(last_seen_at__gt=Now() - ONLINE_WITHIN), False),
            disabled=Q(disabled_at__isnull=False),
            approved=Q(unapproved_since__isnull=True),
            current_run_id=Subquery(held.values("id")[:1]),
        )
        .values(*_COLUMNS)
    )
    return rows
