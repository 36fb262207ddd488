"""The endpoints of pools: list, make, read, change and delete them, and put workers into them."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from workers.models import Pool
from workers.pools import queries, services
from workers.pools.serializers import PoolBody, PoolSerializer
from workspaces.access import TenantViewSet
from workspaces.permissions import IsAdmin
from workspaces.resource_views import ResourceViewSet


class PoolViewSet(ResourceViewSet):
    tag = "Pools"
    resource = services.POOLS
    body = PoolBody
    serializer = PoolSerializer
    example = {"name": "Build machines"}
    change = {"name": "Build machines"}

    @classmethod
    def rows(cls) -> QuerySet[Any, Any]:
        return queries.pools()

    @classmethod
    def shown(cls, rows: list[Any]) -> Any:
        return super().shown(queries.with_workers(rows))


class PoolMemberViewSet(TenantViewSet):
    """The workers of one pool. The list of workers shows them, filtered by the pool."""

    row = services.POOLS.row
    tag = "Pools"
    permissions = {"add": IsAdmin, "remove": IsAdmin}

    @Operation(
        "PUT /pools/{poolId}/workers/{workerId}",
        id="addWorkerToPool",
        summary="Put a worker into a pool",
        answers={204: None},
    )
    def add(self, request: Request, pool_id: UUID, worker_id: UUID) -> Response:
        services.add_worker(pool=self._pool(pool_id), worker_id=worker_id, actor=actor_of(request))
        return Response(status=204)

    @Operation(
        "DELETE /pools/{poolId}/workers/{workerId}",
        id="removeWorkerFromPool",
        summary="Take a worker out of a pool",
        answers={204: None},
    )
    def remove(self, request: Request, pool_id: UUID, worker_id: UUID) -> Response:
        """Takes a worker out of the pool."""
        services.remove_worker(
            pool=self._pool(pool_id), worker_id=worker_id, actor=actor_of(request)
        )
        return Response(status=204)

    def _pool(self, pool_id: UUID) -> Pool:
        return Pool(id=pool_id, environment_id=self.access.environment_id)
