"""Polls of workers that share pools, each of an environment with as many queued runs as one may have (SPEC §16)."""

import os
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.test import Client

from bench.growth.pages import Page, get, undone
from pipedai.events import SYSTEM
from testing.world.cast import Cast, make_cast
from testing.world.many_runs import add_queued
from testing.world.pools import add_pool
from triggers.models import MAX_PREFER_SECONDS, Run
from triggers.runs import lifecycle
from triggers.states import Source
from workers.models import Worker
from workers.registration import Registered
from workspaces.ceilings import PROFILE


def pool_polls() -> Iterator[Page]:
    """Makes the environments, and yields a poll in each. Whatever a poll writes is rolled back."""
    queued = int(os.environ.get("BENCH_QUEUED", PROFILE["queuedRuns"]))  # The suite names fewer.

    cast, worker, pool_id = with_a_pool()
    add_queued(cast.add_trigger(worker_id=worker.worker_id), queued // 2)
    add_queued(cast.add_trigger(worker_id=None, pool_id=pool_id), queued // 2)
    yield _poll("poll for own runs and a pool's", worker)

    cast, worker, pool_id = with_a_pool()
    full = cast.add_trigger(worker_id=None, pool_id=pool_id, max_concurrent_runs=1)
    hold(full, cast.worker.worker_id)
    add_queued(full, queued - 2)
    add_queued(cast.add_trigger(worker_id=None, pool_id=pool_id), 1)
    yield _poll("poll past a full trigger", worker)

    cast, worker, pool_id = with_a_pool()
    preferring = cast.add_trigger(
        worker_id=cast.worker.worker_id, pool_id=pool_id, prefer_seconds=MAX_PREFER_SECONDS
    )
    add_queued(preferring, queued - 1)
    add_queued(cast.add_trigger(worker_id=None, pool_id=pool_id), 1)
    yield _poll("poll past runs of preferred workers", worker)


def with_a_pool() -> tuple[Cast, Registered, UUID]:
    """Makes an environment with a pool of two online workers, of which it returns the second, with room for runs."""
    cast = make_cast()
    worker = cast.register("host-2", max_concurrency=50)
    Worker.objects.filter(environment_id=cast.environment.id).update(max_concurrency=50)
    for each in (cast.worker, worker):
        get(client_of(each), f"/api/v1/workers/{each.worker_id}/poll", {})()
    return cast, worker, add_pool(cast, cast.worker.worker_id, worker.worker_id)


def _poll(name: str, worker: Registered) -> Page:
    return Page(
        name, undone(get(client_of(worker), f"/api/v1/workers/{worker.worker_id}/poll", {}))
    )


def client_of(worker: Registered) -> Client:
    """Returns a client that sends the worker's token."""
    return Client(
        SERVER_NAME="localhost", headers={"authorization": f"Bearer {worker.worker_token}"}
    )


@transaction.atomic
def hold(trigger_id: UUID, worker_id: UUID) -> None:
    """Makes a run of the trigger that the worker holds for a day."""
    run = lifecycle.queue_run(trigger_id=trigger_id, source=Source.API, actor=SYSTEM)
    lifecycle.claim_run(
        worker_id=worker_id, run_id=run["id"], claim_id=None, capacity=1, approved=True, actor=SYSTEM
    )  # fmt: skip
    Run.objects.filter(id=run["id"]).update(lease_expires_at=run["queued_at"] + timedelta(days=1))
