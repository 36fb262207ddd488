"""The endpoints of pools: list, make, read, change and delete them, and put workers into them."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.principal import actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from workers.models import Pool
from workers.pools import queries, services
from workers.pools.serializers import PoolBody, PoolSerializer
from workspaces.access import TenantViewSet, find_visible
from workspaces.permissions import IsAdmin, IsViewer


class EnvironmentPoolViewSet(TenantViewSet):
    tag = "Pools"
    permissions = {"list": IsViewer, "create": IsAdmin}

    @Operation(
        "GET /environments/{environmentId}/pools",
        id="listPools",
        summary="List pools",
        items=PoolSerializer,
        says={200: "A list of pools."},
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = queries.pools().filter(environment_id=environment_id)
        return self.page(request, rows, PoolSerializer, ready=queries.with_workers)

    @Operation(
        "POST /environments/{environmentId}/pools",
        id="createPool",
        summary="Make a pool",
        body=PoolBody,
        example={"name": "Build machines"},
        answers={201: PoolSerializer},
        says={201: "With the pool, which has no workers yet."},
        errors={409: "`name_taken`, `key_taken` or `ceiling_reached`."},
        audit=("pool.created",),
    )
    def create(self, request: Request, environment_id: UUID) -> Response:
        pool_id = services.create_pool(
            environment_id=environment_id,
            values=read_body(PoolBody, request),
            actor=actor_of(request),
        )
        return Response(_shown(pool_id), status=201)


class _OnePoolViewSet(TenantViewSet):
    pool: Pool

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        self.access = find_visible(principal_of(request), queries.LIVE_POOLS, kwargs["pool_id"])
        self.pool = Pool(id=kwargs["pool_id"], environment_id=self.access.environment_id)


class PoolViewSet(_OnePoolViewSet):
    tag = "Pools"
    permissions = {"retrieve": IsViewer, "update": IsAdmin, "destroy": IsAdmin}

    @Operation(
        "GET /pools/{poolId}",
        id="getPool",
        summary="Get a pool",
        answers={200: PoolSerializer},
        says={200: "With the pool."},
    )
    def retrieve(self, request: Request, pool_id: UUID) -> Response:
        return Response(_shown(pool_id))

    @Operation(
        "PATCH /pools/{poolId}",
        id="updatePool",
        summary="Change a pool",
        body=PoolBody,
        partial=True,
        fields_as="POST /environments/{environmentId}/pools",
        example={"name": "Build machines"},
        answers={200: PoolSerializer},
        says={200: "With the pool; what is as it was changes nothing."},
        errors={409: "`name_taken` or `key_taken`."},
        audit=("pool.updated",),
    )
    def update(self, request: Request, pool_id: UUID) -> Response:
        services.update_pool(
            pool=self.pool,
            values=read_body(PoolBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(_shown(pool_id))

    @Operation(
        "DELETE /pools/{poolId}",
        id="deletePool",
        summary="Delete a pool",
        answers={204: None},
        errors={409: "`has_children`: triggers point at it."},
        audit=("pool.deleted",),
    )
    def destroy(self, request: Request, pool_id: UUID) -> Response:
        services.delete_pool(pool=self.pool, actor=actor_of(request))
        return Response(status=204)


class PoolMemberViewSet(_OnePoolViewSet):
    """The workers of one pool. The list of workers shows them, filtered by the pool."""

    tag = "Pools"
    permissions = {"add": IsAdmin, "remove": IsAdmin}

    @Operation(
        "PUT /pools/{poolId}/workers/{workerId}",
        id="addWorkerToPool",
        summary="Put a worker into a pool",
        answers={204: None},
        says={204: "Also when it is in the pool already."},
        errors={409: "`ceiling_reached`: the worker is in as many pools as it may be."},
        audit=("pool.worker-added",),
    )
    def add(self, request: Request, pool_id: UUID, worker_id: UUID) -> Response:
        services.add_worker(pool=self.pool, worker_id=worker_id, actor=actor_of(request))
        return Response(status=204)

    @Operation(
        "DELETE /pools/{poolId}/workers/{workerId}",
        id="removeWorkerFromPool",
        summary="Take a worker out of a pool",
        answers={204: None},
        says={204: "Also when it is not in the pool."},
        audit=("pool.worker-removed",),
    )
    def remove(self, request: Request, pool_id: UUID, worker_id: UUID) -> Response:
        """Takes a worker out of the pool."""
        services.remove_worker(pool=self.pool, worker_id=worker_id, actor=actor_of(request))
        return Response(status=204)


def _shown(pool_id: UUID) -> Any:
    """Returns the pool as an answer shows it, with the counts of its workers."""
    (row,) = queries.with_workers([queries.pools().get(id=pool_id)])
    return PoolSerializer(row).data
