"""What the app adds to the service: the events and changes of workers, retention, and what keeps environments."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from pipedai.retention import Retention, register_retention, rows_where
from triggers.changes import Kind, State, register_changing
from workers import worker_events  # noqa: F401 - importing it connects the receiver
from workers.models import ONLINE_WITHIN, Worker
from workers.pools.services import POOLS
from workers.pools.views import PoolBody
from workers.serializers import WorkerSerializer, worker_rows
from workspaces.files.kinds import OF_ENVIRONMENT, register_kind, register_lookup
from workspaces.files.kinds import Kind as FileKind
from workspaces.services import register_dependents

_live = Worker.objects.filter(deleted_at__isnull=True)
# The audit log keeps the actions that worker events report, so that nothing is lost here.
prune_events = rows_where("worker_event", "t.at < %(before)s", by="t.at")
prune_pairings = rows_where(
    "enrollment",
    "t.kind <> 'code' AND t.approved_at IS NULL AND t.expires_at < %(before)s",
    by="t.expires_at",
)


def _states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    rows = worker_rows().filter(environment_id=environment_id, id__in=ids)
    status_of = WorkerSerializer().get_derivedStatus
    return [State(row["id"], status_of(row)) for row in rows]


def _gone_offline(environment_id: UUID, since: datetime, until: datetime) -> Collection[UUID]:
    """Returns the workers that became offline between these times by being silent, which no call reports."""
    rows = Worker.objects.filter(
        environment_id=environment_id,
        deleted_at__isnull=True,
        signed_off_at__isnull=True,
        last_seen_at__gt=since - ONLINE_WITHIN,
        last_seen_at__lte=until - ONLINE_WITHIN,
    )
    return list(rows.values_list("id", flat=True))


register_changing(Kind("worker", _states, _gone_offline))
register_dependents("worker", lambda id_: _live.filter(environment_id=id_).count())
register_retention(Retention("worker-events", "events of workers", lambda: 1, prune_events))
register_retention(
    Retention("pairings", "requests for pairing that expired", lambda: 1, prune_pairings)
)
# Files describe pools, and name workers by their hostnames.
register_lookup(
    "worker", lambda id_: dict(_live.filter(environment_id=id_).values_list("hostname", "id"))
)
register_kind(
    FileKind(
        resource=POOLS,
        body=PoolBody,
        writes={"pool": OF_ENVIRONMENT, "pool_member": OF_ENVIRONMENT},
    )
)
