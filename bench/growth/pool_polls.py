"""Polls of workers that share pools, each of an environment with as many queued runs as one may have (SPEC §16)."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.test import Client

from bench.growth.pages import Page, get, undone
from pipedai.events import SYSTEM
from testing.world.cast import Cast, make_cast
from testing.world.pools import add_pool
from triggers.models import MAX_PREFER_SECONDS, Run
from triggers.runs import lifecycle
from triggers.states import Source
from workers.models import Worker
from workers.registration import Registered

# The columns in which a copy of a queued run differs from it. The runs came due one after another.
_OTHER = {"id": "uuidv7()", "available_at": "r.available_at + n * interval '1 millisecond'"}


def pool_polls() -> Iterator[Page]:
    """Makes the environments, and yields a poll in each. Whatever a poll writes is rolled back."""
    queued = settings.MAX_QUEUED_RUNS_PER_ENVIRONMENT

    cast, worker, pool_id = _with_a_pool()
    _queue(cast.add_trigger(worker_id=worker.worker_id), queued // 2)
    _queue(cast.add_trigger(worker_id=None, pool_id=pool_id), queued // 2)
    yield _poll("poll for own runs and a pool's", worker)

    cast, worker, pool_id = _with_a_pool()
    full = cast.add_trigger(worker_id=None, pool_id=pool_id, max_concurrent_runs=1)
    _hold(full, cast.worker.worker_id)
    _queue(full, queued - 2)
    _queue(cast.add_trigger(worker_id=None, pool_id=pool_id), 1)
    yield _poll("poll past a full trigger", worker)

    cast, worker, pool_id = _with_a_pool()
    preferring = cast.add_trigger(
        worker_id=cast.worker.worker_id, pool_id=pool_id, prefer_seconds=MAX_PREFER_SECONDS
    )
    _queue(preferring, queued - 1)
    _queue(cast.add_trigger(worker_id=None, pool_id=pool_id), 1)
    yield _poll("poll past runs of preferred workers", worker)


def _with_a_pool() -> tuple[Cast, Registered, UUID]:
    """Makes an environment with a pool of two online workers, of which it returns the second, with room for runs."""
    cast = make_cast()
    worker = cast.register("host-2", max_concurrency=50)
    Worker.objects.filter(environment_id=cast.environment.id).update(max_concurrency=50)
    for each in (cast.worker, worker):
        get(_client(each), f"/api/v1/workers/{each.worker_id}/poll", {})()
    return cast, worker, add_pool(cast, cast.worker.worker_id, worker.worker_id)


def _poll(name: str, worker: Registered) -> Page:
    return Page(name, undone(get(_client(worker), f"/api/v1/workers/{worker.worker_id}/poll", {})))


def _client(worker: Registered) -> Client:
    return Client(
        SERVER_NAME="localhost", headers={"authorization": f"Bearer {worker.worker_token}"}
    )


@transaction.atomic
def _queue(trigger_id: UUID, count: int) -> None:
    """Queues a run of the trigger, and copies it so that there are `count`."""
    run = lifecycle.queue_run(trigger_id=trigger_id, source=Source.API, actor=SYSTEM)
    columns = [str(field.column) for field in Run._meta.concrete_fields]
    values = [_OTHER.get(column, f"r.{column}") for column in columns]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO run ({', '.join(columns)}) SELECT {', '.join(values)}"
            " FROM run r, generate_series(1, %(more)s) n WHERE r.id = %(id)s",
            {"more": count - 1, "id": run["id"]},
        )


@transaction.atomic
def _hold(trigger_id: UUID, worker_id: UUID) -> None:
    run = lifecycle.queue_run(trigger_id=trigger_id, source=Source.API, actor=SYSTEM)
    lifecycle.claim_run(
        worker_id=worker_id, run_id=run["id"], claim_id=None, capacity=1, approved=True, actor=SYSTEM
    )  # fmt: skip
    Run.objects.filter(id=run["id"]).update(lease_expires_at=run["queued_at"] + timedelta(days=1))
