"""How files describe a pool, and name a worker."""

from uuid import UUID

from workers.models import Pool, Worker
from workers.pools import services
from workers.pools.serializers import PoolBody
from workspaces.files.kinds import OF_ENVIRONMENT, Kind, Lookup, register_kind, register_lookup


def _by_hostname(environment_id: UUID) -> dict[str, UUID]:
    live = Worker.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    return dict(live.values_list("hostname", "id"))


register_lookup(Lookup("worker", _by_hostname))
register_kind(
    Kind(
        name="pool",
        model=Pool,
        body=PoolBody,
        create=services.create_pool,
        update=lambda id_, **said: services.update_pool(pool=Pool.objects.get(id=id_), **said),
        delete=lambda id_, **said: services.delete_pool(pool=Pool.objects.get(id=id_), **said),
        writes={"pool": OF_ENVIRONMENT, "pool_member": OF_ENVIRONMENT},
    )
)
