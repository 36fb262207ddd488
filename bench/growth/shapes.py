"""The shapes of data in which statements have read what they do not return: each makes its rows, in an environment of
its own, and yields the calls that meet them.

A shape is made of `rows` rows, or a share of them. What a call answers does not grow with them, unless its page says
how many rows it adds up.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client

from audit.models import AuditEntry
from audit.receivers import add_partitions_of
from bench.growth import verdicts
from bench.growth.ledger import add_ended
from bench.growth.pages import (
    MOST_STATISTICS_MS,
    Page,
    browser_of,
    busy_pages,
    first_of_month,
    get,
    post,
    shown,
    undone,
)
from notices.budgets import find_reached_budgets
from notices.channels.sending import NOTICES
from notices.models import Notice
from pipedai.events import SYSTEM
from pipedai.outgoing.due import claim_due
from pipedai.outgoing.kinds import Kind
from pipedai.sql import database_now, execute
from testing.world.budgets import add_budget
from testing.world.cast import Cast, make_cast
from testing.world.channels import add_channel
from testing.world.copies import add_copies
from testing.world.many_deliveries import add_deliveries
from testing.world.many_runs import add_queued
from testing.world.many_triggers import add_triggers
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import MAX_PREFER_SECONDS, Budget, Run, Tick, Trigger
from triggers.runs import lifecycle
from triggers.states import Decision, Source
from triggers.webhooks.sending import WEBHOOKS
from workers.models import Pool, Worker
from workers.registration import Registered

_HEADERS = {"Authorization": "Bearer not-a-real-token"}
# What does not grow with the rows: triggers of a queue, workers that hold runs, runs of which a poll leaves some, the
# workers of the big pool, many pools, and runs of the present month.
_FEW, _HOLDERS, _QUEUED, _POOL_OF, _POOLS, _OF_MONTH = 3, 100, 60, 500, 40, 1_000

# Puts each worker of the environment into one of so many of its pools.
_JOIN = """
INSERT INTO pool_member (environment_id, worker_id, pool_id)
SELECT w.environment_id, w.id, p.id
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM worker WHERE environment_id = %(id)s) w,
    (SELECT *, row_number() OVER (ORDER BY id) AS n FROM pool WHERE environment_id = %(id)s) p
WHERE (w.n + p.n) %% %(one_in)s = 0 ON CONFLICT DO NOTHING
"""
_WINDOWS = """
INSERT INTO budget_window (id, environment_id, budget_id, generation, starts_at, ends_at, spent_usd, reserved_usd,
    notional_spent_usd, notional_reserved_usd, runs, changes, is_changed, noticed_pct)
SELECT gen_random_uuid(), environment_id, id, generation, now() - interval '1 hour', now() + interval '1 day', 1, 0,
    0, 0, 1, 0, true, 0
FROM budget WHERE environment_id = %(id)s
"""


def _own_queue(rows: int) -> Iterator[Page]:
    cast, worker = _with_a_worker()
    first, *others = (cast.add_trigger(worker_id=worker.worker_id) for _ in range(_FEW))
    return _pages_of_queue(cast, worker, add_queued(first, rows, also_of=others))


def _pool_queue(rows: int) -> Iterator[Page]:
    cast, worker, pool_id = _with_a_pool()
    values = {"worker_id": None, "pool_id": pool_id}
    first, *others = (cast.add_trigger(**values) for _ in range(_FEW))
    return _pages_of_queue(cast, worker, add_queued(first, rows, also_of=others))


def _preferring(rows: int) -> Iterator[Page]:
    """The runs of a pool wait for the worker that their trigger prefers, all but one."""
    cast, worker, pool_id = _with_a_pool()
    preferring = cast.add_trigger(
        worker_id=cast.worker.worker_id, pool_id=pool_id, prefer_seconds=MAX_PREFER_SECONDS
    )
    run_id = add_queued(preferring, rows)
    add_queued(cast.add_trigger(worker_id=None, pool_id=pool_id), 1)
    return _pages_of_queue(cast, worker, run_id)


def _spent_budget(rows: int) -> Iterator[Page]:
    cast, worker = _with_a_worker()
    add_budget(cast, limit_runs=1)
    execute(_WINDOWS, {"id": cast.environment.id})
    run_id = add_queued(cast.add_trigger(worker_id=worker.worker_id), rows)
    return _pages_of_queue(cast, worker, run_id)


def _full_triggers(rows: int) -> Iterator[Page]:
    """A twentieth of the rows are triggers, all but one of them full; workers outside of the pool hold their runs."""
    cast, worker, pool_id = _with_a_pool()
    # The one run that may go out comes after nearly all others.
    add_queued(cast.add_trigger(worker_id=None, pool_id=pool_id), 1)
    values: dict[str, Any] = {"worker_id": None, "pool_id": pool_id, "max_concurrent_runs": 1}
    full = cast.add_trigger(**values)
    _hold(full, cast.worker.worker_id)
    add_triggers(cast, rows // 20, **values)
    of_it = Trigger.objects.filter(environment=cast.environment, schedule__isnull=False)
    others = list(of_it.values_list("id", flat=True))
    holders = _add_workers(cast, _HOLDERS)
    add_copies(
        Run, Run.objects.get(trigger_id=full).id, len(others), {"triggers": others, "workers": holders},
        trigger_id="(%(triggers)s::uuid[])[n]", slot="o.slot + n",
        worker_id=f"(%(workers)s::uuid[])[n %% {_HOLDERS} + 1]",
    )  # fmt: skip
    return _pages_of_queue(cast, worker, add_queued(full, rows, also_of=others))


def _unapproved(rows: int) -> Iterator[Page]:
    cast, worker = _with_a_worker()
    Worker.objects.filter(id=worker.worker_id).update(unapproved_since=Now())
    sealed = cast.add_trigger(worker_id=worker.worker_id, mcp_headers=_HEADERS)
    add_queued(cast.add_trigger(worker_id=worker.worker_id), 1)
    run_id = add_queued(sealed, rows)
    return _pages_of_queue(cast, worker, run_id)


def _busy_service(rows: int) -> Iterator[Page]:
    """Another environment has the rows, as queued runs. No trigger of the service has headers."""
    Trigger.objects.update(mcp_headers=None, mcp_key=None)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE trigger")
    add_queued(make_cast().trigger_id, rows)
    cast, worker = _with_a_worker()
    run_id = add_queued(cast.add_trigger(worker_id=worker.worker_id), _QUEUED)
    return _pages_of_queue(cast, worker, run_id)


def _big_pool(rows: int) -> Iterator[Page]:
    """A pool of as many workers at any size, in a service that has a fifth of the rows as workers."""
    _add_workers(make_cast(), rows // 5)
    cast, worker, pool_id = _with_a_pool()
    _add_workers(cast, _POOL_OF)
    execute(_JOIN, {"id": cast.environment.id, "one_in": 1})
    run_id = add_queued(cast.add_trigger(worker_id=None, pool_id=pool_id), _QUEUED)
    yield from _pages_of_queue(cast, worker, run_id)
    path = f"/api/v1/environments/{cast.environment.id}/workers"
    yield Page("workers", get(browser_of(cast.owner), path, {"poolId": str(pool_id)}))


def _many_pools(rows: int) -> Iterator[Page]:
    """Pools with a fifth of the rows as members, each worker in half of them."""
    cast = make_cast()
    _add_workers(cast, rows // 100 - 1)
    add_copies(Pool, add_pool(cast), _POOLS - 1, name="o.name || ' ' || n")
    execute(_JOIN, {"id": cast.environment.id, "one_in": 2})
    path = f"/api/v1/environments/{cast.environment.id}/pools"
    # The list of pools adds their members up.
    yield Page("pools", get(browser_of(cast.owner), path, {}), rows // 5, MOST_STATISTICS_MS)


def _dead_host(rows: int) -> Iterator[Page]:
    """Three times the rows are webhooks to a host that never answers, and twice the rows notices to another."""
    cast = make_cast()
    add_deliveries(cast.trigger_id, 3 * rows, due=database_now())
    notice = Notice.objects.create(
        environment=cast.environment, channel=add_channel(cast), event="channel.test",
        host="hooks.example", body="{}",
    )  # fmt: skip
    add_copies(Notice, notice.id, 2 * rows - 1)
    yield Page("claiming due webhooks", _claim(WEBHOOKS))
    yield Page("claiming due notices", _claim(NOTICES))
    path = f"/api/v1/triggers/{cast.trigger_id}/deliveries"
    yield Page("deliveries", get(browser_of(cast.owner), path, {}))


def _many_budgets(rows: int) -> Iterator[Page]:
    """A twentieth of the rows are triggers, and for ten of these there is a budget whose window has changed."""
    cast = make_cast()
    add_triggers(cast, rows // 20)
    budget = add_budget(cast, limit_usd=100, notice_at_pct=[80, 100])
    add_copies(Budget, budget.id, rows // 200 - 1, name="o.name || ' ' || n")
    execute(_WINDOWS, {"id": cast.environment.id})
    # The least that a run could cost is asked of all triggers, once.
    yield Page("finding reached budgets", undone(find_reached_budgets), counted=rows // 20)
    environment = f"/api/v1/environments/{cast.environment.id}"
    for name in ("budgets", "triggers"):
        yield Page(name, get(browser_of(cast.owner), f"{environment}/{name}", {}))


def _burst(rows: int) -> Iterator[Page]:
    """The rows are runs of a new environment, which ended in the hundred days before this month, and as many audit
    entries. The month has few.
    """
    cast = make_cast()
    now = database_now()
    runs = Runs(cast, cast.trigger_id, now - timedelta(minutes=5))
    canceled = runs.queue()
    runs.cancel(canceled)
    run_id = runs.ended("failed", faultClass="infra")
    samples = [runs.ended(), runs.ended("failed", faultClass="client"), canceled, run_id]
    month = first_of_month()
    first = month - timedelta(days=100)
    add_ended(cast.environment.id, rows, samples, since=first, until=month)
    add_ended(cast.environment.id, _OF_MONTH, samples, since=month, until=now)
    add_partitions_of(first + timedelta(days=n) for n in range(132))
    add_copies(
        AuditEntry, runs.audited(run_id)[-1].id, rows, {"step": (now - first) / rows},
        created_at="o.created_at - n * %(step)s",
    )  # fmt: skip
    yield from busy_pages(cast.owner, cast.environment.id)
    client, environment = browser_of(cast.owner), f"/api/v1/environments/{cast.environment.id}"
    for name, value in (
        ("status", "failed"), ("status", "canceled"), ("status", "queued"), ("final", "true"),
        ("source", "api"), ("source", "schedule"), ("faultClass", "infra"),
        ("workerId", str(cast.worker.worker_id)),
    ):  # fmt: skip
        query = {name: value}
        yield Page(f"runs{shown(query)}", get(client, f"{environment}/runs", query))
    yield Page("runs", get(client, f"{environment}/runs", {}))
    yield Page("runs of a trigger", get(client, f"/api/v1/triggers/{cast.trigger_id}/runs", {}))
    for query in ({}, {"action": "run.completed"}, {"action": "trigger.created"}):
        yield Page(f"audit log{shown(query)}", get(client, f"{environment}/audit-log", query))


# The shape `own-queue` is made by `_own_queue`.
SHAPES: Mapping[str, Callable[[int], Iterator[Page]]] = {
    name: globals()[f"_{name.replace('-', '_')}"] for name in verdicts.SHAPES
}


def _pages_of_queue(cast: Cast, worker: Registered, run_id: UUID) -> Iterator[Page]:
    """Yield what reads the queue of a worker, and explanations of its run `run_id`, which it will not get next."""
    url, client = f"/api/v1/workers/{worker.worker_id}", _client_of(worker)
    owner = browser_of(cast.owner)
    body = {"claimId": "bench"}
    # However long it takes to measure, the workers count as online.
    of_it = Worker.objects.filter(environment=cast.environment)
    of_it.update(last_seen_at=Now() + timedelta(hours=1))
    run = Run.objects.get(id=run_id)
    Tick.objects.create(
        environment=cast.environment, trigger_id=run.trigger_id, run_id=run_id,
        tick_at=run.queued_at, last_tick_at=run.queued_at, decision=Decision.FIRED,
    )  # fmt: skip
    trigger, at = f"/api/v1/triggers/{run.trigger_id}", run.queued_at.isoformat()
    yield Page("poll", undone(get(client, f"{url}/poll", {})))
    yield Page("claim-next", undone(lambda: post(client, f"{url}/claim-next", body)))
    yield Page("why a run waits", get(owner, f"/api/v1/runs/{run_id}/explain", {}))
    yield Page("what became of a due time", get(owner, f"{trigger}/explain", {"at": at}))
    runs = f"/api/v1/environments/{cast.environment.id}/runs"
    yield Page("queued runs", get(owner, runs, {"status": "queued"}))


def _with_a_pool() -> tuple[Cast, Registered, UUID]:
    """Makes an environment with a pool of two online workers, of which it returns the second, with room for runs."""
    cast, worker = _with_a_worker()
    Worker.objects.filter(id=cast.worker.worker_id).update(max_concurrency=50)
    get(_client_of(cast.worker), f"/api/v1/workers/{cast.worker.worker_id}/poll", {})()
    return cast, worker, add_pool(cast, cast.worker.worker_id, worker.worker_id)


def _client_of(worker: Registered) -> Client:
    """Returns a client that sends the worker's token."""
    return Client(
        SERVER_NAME="localhost", headers={"authorization": f"Bearer {worker.worker_token}"}
    )


@transaction.atomic
def _hold(trigger_id: UUID, worker_id: UUID) -> None:
    """Makes a run of the trigger that the worker holds for a day."""
    run = lifecycle.queue_run(trigger_id=trigger_id, source=Source.API, actor=SYSTEM)
    lifecycle.claim_run(
        worker_id=worker_id, run_id=run["id"], claim_id=None, capacity=1, approved=True, actor=SYSTEM
    )  # fmt: skip
    Run.objects.filter(id=run["id"]).update(lease_expires_at=run["queued_at"] + timedelta(days=1))


def _with_a_worker() -> tuple[Cast, Registered]:
    """Makes an environment with a worker that is online and in no pool, with room for runs."""
    cast = make_cast()
    worker = cast.register("host-2", max_concurrency=50)
    get(_client_of(worker), f"/api/v1/workers/{worker.worker_id}/poll", {})()
    return cast, worker


def _add_workers(cast: Cast, count: int) -> list[UUID]:
    """Adds workers that are online and have one place each, and returns the ids of all such workers."""
    original = cast.worker.worker_id
    Worker.objects.filter(id=original).update(last_seen_at=Now(), max_concurrency=1)
    label = "o.label || ' ' || n"
    digest = "sha256(o.token_digest || n::text::bytea)"
    add_copies(Worker, original, count, label=label, hostname=label, token_digest=digest)
    of_it = Worker.objects.filter(environment=cast.environment, max_concurrency=1)
    return list(of_it.values_list("id", flat=True))


def _claim(kind: Kind) -> Callable[[], object]:
    return undone(lambda: claim_due(kind, room=32, busy={}, per_host=4))
