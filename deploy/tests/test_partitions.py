"""The whole product works on tables that are partitioned by environment, and its hot path touches one partition.

docs/scaling.md tells what this shows about databases that are distributed by environment.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection, transaction

from pipedai.env import BASE_DIR
from pipedai.loop import registered_jobs
from pipedai.outgoing import attempts, due
from pipedai.outgoing.posts import Answer
from pipedai.sql import database_now
from testing.probes.partitions import touched_partitions
from testing.world.routes import ROUTES
from testing.world.runs import Runs
from testing.world.stage import set_stage
from triggers.models import Delivery, Run, Trigger
from triggers.runs.lifecycle import expire_queued_runs, expire_runs
from triggers.schedules.firing import fire_due_ticks
from triggers.webhooks.sending import WEBHOOKS

# What reads several partitions: by the id of a run or a delivery alone, or by that of a trigger or worker alone. It
# costs a look into one index of each partition. docs/scaling.md says why each is left.
CROSSING = {
    "DELETE pools/:pool/workers/:worker",
    "DELETE triggers/:trigger",
    "DELETE workers/:worker",
    "DELETE workspaces/:workspace/workers/:worker",
    "GET environments/:environment/attention",
    "GET environments/:environment/dashboard/overview",
    "GET environments/:environment/triggers",
    "GET runs/:run",
    "GET runs/:run/events",
    "GET runs/:run/events/stream",
    "GET runs/:run/explain",
    "GET runs/:run/tool-calls",
    "GET triggers/:trigger",
    "GET triggers/:trigger/deliveries",
    "GET triggers/:trigger/explain",
    "GET triggers/:trigger/runs",
    "GET triggers/:trigger/ticks",
    "PATCH triggers/:trigger",
    "POST deliveries/:delivery/redeliver",
    "POST environments/:environment/runs/bulk",
    "POST environments/:environment/triggers",
    "POST environments/:environment/triggers/bulk",
    "POST runs/:run/cancel",
    "POST runs/:run/rerun",
    "POST runs/:run/watch",
    "POST triggers/:trigger/revisions/:revision/restore",
    "POST triggers/:trigger/rotate-mcp-token",
    "POST triggers/:trigger/test-webhook",
    "POST workers/:worker/revoke-token",
    "POST workers/:worker/sign-off",
    "POST workers/:worker/runs/:run/approvals/:approval/spend",
    "POST workers/:worker/runs/:run/complete",
    "POST workers/:worker/runs/:run/events",
    "POST workspaces/:workspace/workers/:worker/disable",
}
# Jobs of the scheduler look for what is due in all environments.
CROSSING_JOBS = {"expire-queued-runs", "expire-runs"}


_FORGET_SIZES = """
SELECT pg_clear_relation_stats('public', relname) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'i') AND reltuples >= 0
"""


@pytest.fixture
def partitioned(db):
    connection.ensure_connection()
    # The sizes of tables that other tests' ANALYZE noted outlive their transactions, and would decide the plans.
    if connection.connection.info.server_version >= 180_000:
        connection.connection.execute(_FORGET_SIZES)
    for script in ("keys.sql", "partition.sql"):
        connection.connection.execute((BASE_DIR / "deploy/distribute" / script).read_text())


def test_the_hot_path_touches_one_partition(partitioned, cast):
    client, key = cast.worker_client(), cast.key_client()
    trigger_id = cast.add_trigger(
        schedule="* * * * *", overlap_policy="skip", webhook_url="https://hooks.example/"
    )
    base = f"/api/v1/workers/{cast.worker.worker_id}"
    # The end of a trigger's first run, and of one that changes its health, also reads the runs of the trigger.
    Runs(cast, trigger_id, now=database_now()).ended()

    def done(answer):
        assert answer.status_code in (200, 201), answer.content
        return answer.json()

    run = done(key.post(f"/api/v1/triggers/{trigger_id}/run", {"payload": {}}))["id"]
    owned = f"{base}/runs/{run}"
    counts = {"toolCalls": {"total": 1, "effects": 0, "unknown": 0}}
    steps: dict[str, Callable[[], object]] = {
        "queue": lambda: done(key.post(f"/api/v1/triggers/{cast.trigger_id}/run", {})),
        "poll": lambda: done(client.get(f"{base}/poll")),
        "claim": lambda: done(client.post(f"{owned}/claim", {"claimId": "mine"})),
        "start": lambda: done(client.post(f"{owned}/start", {})),
        "heartbeat": lambda: done(client.post(f"{owned}/heartbeat", {})),
        "heartbeat with counts": lambda: done(client.post(f"{owned}/heartbeat", counts)),
        "complete": lambda: done(client.post(f"{owned}/complete", {"status": "succeeded"})),
    }
    crossing = {name: crossed for name, step in steps.items() if (crossed := _crossed(step))}
    assert crossing == {}


def test_firing_and_delivering_touch_the_partitions_of_their_environments(partitioned, cast):
    trigger_id = cast.add_trigger(
        schedule="* * * * *", overlap_policy="skip", webhook_url="https://hooks.example/"
    )
    minute = database_now().replace(second=0, microsecond=0)
    Trigger.objects.filter(id=trigger_id).update(next_run_at=minute)
    assert _crossed(lambda: fire_due_ticks()) == {}
    assert Run.objects.filter(trigger_id=trigger_id).count() == 1
    runs = Runs(cast, trigger_id, now=database_now())
    runs.ended()
    # The search for due deliveries goes through all environments. The claim and the record touch one partition.
    claimed = []
    (search,) = _crossed(lambda: claimed.extend(_claim())).keys()
    assert search.startswith("WITH RECURSIVE pair")
    answer = Answer(200, 5, None, b"", None)
    assert _crossed(lambda: attempts.record(WEBHOOKS, [(claimed[0], answer)])) == {}
    assert Delivery.objects.get(trigger_id=trigger_id).status == "delivered"


def test_retries_and_expiry_touch_the_partitions_of_their_environments(partitioned, cast):
    runs = Runs.of(cast, max_retries=3)
    runs.now = database_now()
    failed = runs.running(payload={})
    assert _crossed(lambda: runs.complete(failed, "failed", faultClass="infra")) == {}
    assert Run.objects.get(retry_of_id=failed).status == "queued"
    # The searches for lost runs and for those that no worker may start go through all environments, and the judgement
    # of a trigger's health, which a final failure changes, goes by the trigger alone.
    lost = runs.running(payload={})
    (search,) = _crossed(lambda: expire_runs(now=runs.wait(hours=2))).keys()
    assert "SELECT r.* FROM ( SELECT f.*," in search
    assert Run.objects.get(id=lost).retried
    late = Runs.of(cast, start_deadline_seconds=60)
    late.now = database_now()
    unstarted = late.queue()
    search, judgement = _crossed(lambda: expire_queued_runs(now=late.wait(hours=1))).keys()
    assert "SELECT r.* FROM ( SELECT f.*," in search
    assert "UPDATE trigger_health h SET" in judgement
    assert Run.objects.get(id=unstarted).status == "failed"


def test_what_else_reads_several_partitions_is_known(partitioned, cast):
    stage = set_stage(cast)
    crossing = set()
    for route in ROUTES:
        call = partial(route.send, route.caller(cast), route.url(stage), cast)
        # What a call changes is undone, so that the next one finds all rows of the stage.
        with transaction.atomic():
            if _crossed(call):
                crossing.add(str(route))
            transaction.set_rollback(True)
    jobs = set()
    for job in registered_jobs():
        # The others send, remove old rows or change the schema.
        if not job.name.startswith(("send-", "prune", "heartbeat", "add-")) and _crossed(job.work):
            jobs.add(job.name)
    assert (crossing, jobs) == (CROSSING, CROSSING_JOBS)


def _claim():
    later = database_now() + timedelta(seconds=1)
    return due.claim_due(WEBHOOKS, room=8, busy={}, per_host=4, now=later)


def _crossed(step: Callable[[], object]) -> dict[str, str]:
    with touched_partitions() as touched:
        step()
    return touched.crossing
