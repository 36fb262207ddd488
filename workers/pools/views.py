"""The endpoints of pools: list, make, read, change and delete them, and put workers into them."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from workers.models import Pool
from workers.pools import services
from workers.pools.serializers import COLUMNS, PoolBody, PoolSerializer, with_workers
from workspaces.access import IsAdmin
from workspaces.resource_views import ResourceViewSet


class PoolViewSet(ResourceViewSet):
    """Pools, and who is in them. The list of workers, filtered by a pool, shows its workers."""

    tag = "Pools"
    permissions = {"add": IsAdmin, "remove": IsAdmin}
    resource = services.POOLS
    body = PoolBody
    serializer = PoolSerializer
    example = {"name": "Build machines"}
    change = {"name": "Build machines"}

    @classmethod
    def rows(cls) -> QuerySet[Any, Any]:
        return super().rows().values(*COLUMNS)

    @classmethod
    def shown(cls, rows: list[Any]) -> Any:
        return super().shown(with_workers(rows))

    @Operation(
        "PUT /pools/{poolId}/workers/{workerId}",
        id="addWorkerToPool",
        summary="Put a worker into a pool",
    )
    def add(self, request: Request, pool_id: UUID, worker_id: UUID) -> Response:
        services.add_worker(pool=self._pool(pool_id), worker_id=worker_id, actor=actor_of(request))
        return Response(status=204)

    @Operation(
        "DELETE /pools/{poolId}/workers/{workerId}",
        id="removeWorkerFromPool",
        summary="Take a worker out of a pool",
    )
    def remove(self, request: Request, pool_id: UUID, worker_id: UUID) -> Response:
        """Takes a worker out of the pool."""
        services.remove_worker(
            pool=self._pool(pool_id), worker_id=worker_id, actor=actor_of(request)
        )
        return Response(status=204)

    def _pool(self, pool_id: UUID) -> Pool:
        return Pool(id=pool_id, environment_id=self.access.environment_id)
