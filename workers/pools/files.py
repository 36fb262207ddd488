"""How files describe a pool, and name a worker."""

from uuid import UUID

from workers.models import Worker
from workers.pools.serializers import PoolBody
from workers.pools.services import POOLS
from workspaces.files.kinds import OF_ENVIRONMENT, Kind, Lookup, register_kind, register_lookup


def _by_hostname(environment_id: UUID) -> dict[str, UUID]:
    live = Worker.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    return dict(live.values_list("hostname", "id"))


register_lookup(Lookup("worker", _by_hostname))
register_kind(
    Kind(
        resource=POOLS,
        body=PoolBody,
        writes={"pool": OF_ENVIRONMENT, "pool_member": OF_ENVIRONMENT},
    )
)
