"""Floods of one tenant: thousands of due rows of each job that takes turns between workspaces.

Each adds so many rows to the cast's environment, and returns a function that counts those that still wait.
"""

from collections.abc import Callable
from datetime import timedelta

from notices.models import Channel, Incident, UntoldOutcome
from pipedai.ids import new_id
from pipedai.sql import database_now, execute
from testing.world.budgets import add_budget
from testing.world.cast import Cast
from testing.world.channels import add_channel
from testing.world.copied_rows import copy_row
from testing.world.incidents import open_incident
from testing.world.many_triggers import add_triggers
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Approval, BudgetWindow, Event, Run, Trigger, TriggerHealth
from workers.models import Pool, Worker

Add = Callable[[Cast, int], Callable[[], int]]

SOON = "clock_timestamp() - interval '1 minute'"
TOKEN = {"token_digest": "sha256(gen_random_uuid()::text::bytea)"}
SETTINGS = {"at": "07:00", "timezone": "UTC", "weekdays": ["mon"]}


def due_triggers(cast: Cast, count: int) -> Callable[[], int]:
    add_triggers(cast, count, schedule="0 0 1 1 *", due=database_now(), worker_id=None)
    mine = Trigger.objects.filter(environment=cast.environment)
    return mine.filter(next_run_at__lt=database_now()).count


def undecided(cast: Cast, count: int) -> Callable[[], int]:
    copy_row(Run, Runs.of(cast).ended(), count - 1)
    Event.objects.filter(environment=cast.environment).delete()
    execute(
        "INSERT INTO event (id, environment_id, run_id)"
        " SELECT gen_random_uuid(), environment_id, id FROM run WHERE environment_id = %(id)s",
        {"id": cast.environment.id},
    )
    return Event.objects.filter(environment=cast.environment, decided_at=None).count


def overdue(cast: Cast, count: int) -> Callable[[], int]:
    runs = Runs.of(cast)
    runs.now = database_now() - timedelta(hours=2)
    copy_row(Run, runs.running(), count - 1, slot="n + 1")
    return Run.objects.filter(environment=cast.environment, slot__isnull=False).count


def unstarted(cast: Cast, count: int) -> Callable[[], int]:
    runs = Runs.of(cast)
    runs.now = database_now()
    run_id = runs.queue()
    Run.objects.filter(id=run_id).update(start_deadline_at=database_now() - timedelta(minutes=1))
    copy_row(Run, run_id, count - 1)
    return Run.objects.filter(environment=cast.environment, ended_at=None).count


def untold(cast: Cast, count: int) -> Callable[[], int]:
    first = UntoldOutcome.objects.create(environment=cast.environment, run_id=new_id())
    copy_row(UntoldOutcome, first.id, count - 1)
    return UntoldOutcome.objects.filter(environment=cast.environment).count


def summaries(cast: Cast, count: int) -> Callable[[], int]:
    channel = add_channel(cast, summary=SETTINGS)
    mine = Channel.objects.filter(environment=cast.environment)
    mine.update(summary_due_at=database_now() - timedelta(minutes=1))
    copy_row(Channel, channel.id, count - 1)
    return mine.filter(summary_due_at__lt=database_now()).count


def unchecked(cast: Cast, count: int) -> Callable[[], int]:
    add_triggers(cast, count, worker_id=None, success_deadline_seconds=60)
    execute(
        "INSERT INTO trigger_health (trigger_id, environment_id, has_outcome, failures, is_failing, check_at)"
        f" SELECT id, environment_id, false, 0, false, {SOON} FROM trigger WHERE environment_id = %(id)s"
        f" ON CONFLICT (trigger_id) DO UPDATE SET check_at = {SOON}",
        {"id": cast.environment.id},
    )
    mine = TriggerHealth.objects.filter(environment=cast.environment)
    return mine.filter(check_at__lt=database_now()).count


def silent_workers(cast: Cast, count: int) -> Callable[[], int]:
    mine = Worker.objects.filter(id=cast.worker.worker_id)
    mine.update(last_seen_at=database_now() - timedelta(hours=1))
    copy_row(Worker, cast.worker.worker_id, count - 1, hostname="'host-' || n + 1", **TOKEN)
    return _needed(cast, Worker, "worker_id", count)


def silent_pools(cast: Cast, count: int) -> Callable[[], int]:
    pool_id = add_pool(cast)
    Pool.objects.filter(id=pool_id).update(created_at=database_now() - timedelta(hours=1))
    copy_row(Pool, pool_id, count - 1, name="'pool ' || n")
    return _needed(cast, Pool, "pool_id", count)


def _needed(cast: Cast, model: type[Pool | Worker], column: str, count: int) -> Callable[[], int]:
    """Lets an enabled trigger need each of these, and returns how many of them have no incident."""
    add_triggers(cast, count, worker_id=None)
    table = model._meta.db_table
    execute(
        f"""
        UPDATE trigger t SET {column} = x.id FROM (
            SELECT id, row_number() OVER () AS n FROM {table} WHERE environment_id = %(id)s) x, (
            SELECT id, row_number() OVER () AS n FROM trigger WHERE environment_id = %(id)s) y
        WHERE x.n = y.n AND t.id = y.id
        """,
        {"id": cast.environment.id},
    )
    told = Incident.objects.filter(environment=cast.environment, subject_type=table)
    return lambda: count - told.count()


def reached(cast: Cast, count: int) -> Callable[[], int]:
    runs = Runs.of(cast)
    add_budget(cast)
    runs.ended()
    mine = BudgetWindow.objects.filter(environment=cast.environment)
    days = {f"{side}_at": f"r.{side}_at + n * interval '1 day'" for side in ("starts", "ends")}
    copy_row(BudgetWindow, mine.get().id, count - 1, **days)
    return mine.filter(is_changed=True).count


def incidents(cast: Cast, count: int) -> Callable[[], int]:
    incident_id = open_incident(cast)
    mine = Incident.objects.filter(environment=cast.environment, kind="trigger_failing")
    mine.update(remind_at=database_now() - timedelta(minutes=1))
    copy_row(Incident, incident_id, count - 1, subject_id="gen_random_uuid()")
    return mine.filter(remind_at__lt=database_now()).count


def questions(cast: Cast, count: int) -> Callable[[], int]:
    runs = Runs.of(cast)
    runs.now = database_now()
    run_id = runs.waiting()
    copy_row(Run, run_id, count - 1)
    mine = Approval.objects.filter(environment=cast.environment)
    mine.update(remind_at=database_now() - timedelta(minutes=1))
    (first,) = mine
    asking = f"""(
        SELECT x.id FROM (
            SELECT id, row_number() OVER () AS number FROM run
            WHERE environment_id = '{cast.environment.id}' AND status = 'waiting' AND id <> '{run_id}') x
        WHERE x.number = n.n)"""
    copy_row(Approval, first.id, count - 1, run_id=asking)
    return mine.filter(remind_at__isnull=False).count


FLOODS: dict[str, Add] = {
    "fire-ticks": due_triggers,
    "decide-ends": undecided,
    "expire-runs": overdue,
    "expire-queued-runs": unstarted,
    "tell-outcomes": untold,
    "send-summaries": summaries,
    "find-late-triggers": unchecked,
    "find-offline-workers": silent_workers,
    "find-offline-pools": silent_pools,
    "find-reached-budgets": reached,
    "remind-of-incidents": incidents,
    "remind-of-questions": questions,
}
