"""Reads the states of workers for the streams of their environment."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from triggers.changes.kinds import Kind, State
from workers import queries
from workers.models import ONLINE_WITHIN, Worker
from workers.serializers import WorkerSerializer


def _states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    rows = queries.workers().filter(environment_id=environment_id, id__in=ids)
    status_of = WorkerSerializer().get_derivedStatus
    return [State(row["id"], status_of(row)) for row in rows]


def _gone_offline(environment_id: UUID, since: datetime, until: datetime) -> Collection[UUID]:
    """Returns the workers that have been silent for so long, since some time between these two, that they count as
    offline. No call tells of it.
    """
    rows = Worker.objects.filter(
        environment_id=environment_id,
        deleted_at__isnull=True,
        last_seen_at__gt=since - ONLINE_WITHIN,
        last_seen_at__lte=until - ONLINE_WITHIN,
    )
    return list(rows.values_list("id", flat=True))


WORKERS = Kind("worker", _states, _gone_offline)
