"""The endpoints of pools: list, make, read, change and delete them, and put workers into them."""

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.fields import TextField
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import RowSerializer
from pipedai.sql import fetch_all
from triggers.runs.conditions import is_online
from workers.models import Pool
from workers.pools import services
from workspaces.access import IsAdmin
from workspaces.resource_views import ResourceViewSet
from workspaces.serializers import FileBody


class PoolBody(FileBody):
    description = TextField(max_length=2000, allow_blank=True, default="")


class PoolWorkersSerializer(RowSerializer):
    """How many workers a pool has, how many of them are online, and how many of these can take another run now."""

    total = serializers.IntegerField()
    online = serializers.IntegerField()
    free = serializers.IntegerField()


class PoolSerializer(RowSerializer):
    """A pool."""

    of = Pool
    shows = "id key managedBy environmentId name description workers createdAt"
    workers = PoolWorkersSerializer()


# Counts the workers of pools. A worker that is in several of the pools is read once. It is free if it is online and
# could take another run: it is neither disabled nor limited, and holds fewer runs than it may. Each worker's state
# comes with the list of its pools, because PostgreSQL might join states and members row by row, expecting few.
_COUNT = f"""
WITH state AS MATERIALIZED (
    SELECT member.pool_ids, w.disabled_at IS NULL AND coalesce(w.limited_until <= statement_timestamp(), true)
        AND w.max_concurrency > (
            SELECT count(*) FROM run r
            WHERE r.worker_id = w.id AND r.environment_id = w.environment_id AND r.slot IS NOT NULL)
        AS may_take, {is_online("w", "statement_timestamp()")} AS online
    FROM (
        SELECT worker_id, array_agg(pool_id) AS pool_ids FROM pool_member
        WHERE pool_id = ANY(%(pool_ids)s) GROUP BY worker_id) member
    JOIN worker w ON w.id = member.worker_id)
SELECT pool_id, count(*) AS total, count(*) FILTER (WHERE online) AS online,
    count(*) FILTER (WHERE online AND may_take) AS free
FROM state CROSS JOIN unnest(pool_ids) AS pool_id
GROUP BY pool_id
"""  # noqa: S608
_NONE = {"total": 0, "online": 0, "free": 0}


def with_workers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to each pool the numbers of its `workers`: `total`, `online` and `free`. It runs one query."""
    params = {"pool_ids": [row["id"] for row in rows]}
    counts = {count.pop("pool_id"): count for count in fetch_all(_COUNT, params)}
    return [{**row, "workers": counts.get(row["id"], _NONE)} for row in rows]


class PoolViewSet(ResourceViewSet):
    """Pools, and who is in them. The list of workers, filtered by a pool, shows its workers."""

    tag = "Pools"
    permissions = {"add": IsAdmin, "remove": IsAdmin}
    resource = services.POOLS
    body = PoolBody
    serializer = PoolSerializer
    example = {"name": "Build machines"}
    change = {"name": "Build machines"}

    def shown(self, rows: list[Any]) -> Any:
        return super().shown(with_workers(rows))

    @Operation(
        "PUT /pools/{poolId}/workers/{workerId}",
        id="addWorkerToPool",
        summary="Put a worker into a pool",
    )
    def add(self, request: Request, pool_id: UUID, worker_id: UUID) -> None:
        services.add_worker(pool=self._pool(pool_id), worker_id=worker_id, actor=actor_of(request))

    @Operation(
        "DELETE /pools/{poolId}/workers/{workerId}",
        id="removeWorkerFromPool",
        summary="Take a worker out of a pool",
    )
    def remove(self, request: Request, pool_id: UUID, worker_id: UUID) -> None:
        services.remove_worker(
            pool=self._pool(pool_id), worker_id=worker_id, actor=actor_of(request)
        )

    def _pool(self, pool_id: UUID) -> Pool:
        return Pool(id=pool_id, environment_id=self.access.environment_id)
