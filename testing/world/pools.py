"""Makes pools of workers for tests."""

from uuid import UUID

from pipedai.ids import new_id
from testing.world.cast import TEST_ACTOR, Cast
from workers.models import Pool
from workers.pools.services import POOLS, add_worker


def add_pool(cast: Cast, *worker_ids: UUID, name: str | None = None) -> UUID:
    """Makes a pool in the cast's environment, with these workers and an unused name, and returns its id."""
    values = {"name": name or f"Pool {new_id()}", "description": ""}
    pool_id = POOLS.create(environment_id=cast.environment.id, values=values, actor=TEST_ACTOR)
    pool = Pool(id=pool_id, environment_id=cast.environment.id)
    for worker_id in worker_ids:
        add_worker(pool=pool, worker_id=worker_id, actor=TEST_ACTOR)
    return pool_id
