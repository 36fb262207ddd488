"""What needs attention is found without reading what is not returned, also by the plan that PostgreSQL keeps."""

from datetime import timedelta
from typing import Any

import pytest

from notices import attention
from notices.attention import KINDS, RECENT
from pipedai.sql import database_now, execute, fetch_all
from testing.probes.plans import Plans, explained, explained_as_kept
from testing.world.cast import Cast
from testing.world.connections import add_oauth_connection
from testing.world.copied_rows import copy_ended_run, copy_row
from testing.world.many_triggers import add_triggers
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.explain.due_times import LATE_AFTER
from triggers.models import Approval, Run
from workers.models import Pool, Worker
from workspaces.connections.models import Connection

_MEMBERS, _APPROVALS, _TRIGGERS, _POOLS, _WORKERS, _EACH, _SHOWN = 300, 40, 300, 40, 60, 20, 5

_ADD_MEMBERS = """
WITH added AS (
    INSERT INTO user_account (id, email, name, password, is_active, is_staff)
    SELECT gen_random_uuid(), 'member-' || n || '@example.com', 'Member', '', true, false
    FROM generate_series(1, %(count)s) n RETURNING id)
INSERT INTO membership (id, environment_id, user_id, role) SELECT gen_random_uuid(), %(id)s, id, 'operator' FROM added
"""
_ADD_HEALTH = """
INSERT INTO trigger_health (trigger_id, environment_id, has_outcome, failures, is_failing)
SELECT id, environment_id, true, 0, false FROM trigger ON CONFLICT DO NOTHING
"""
_JOIN_ALL = """
INSERT INTO pool_member (environment_id, worker_id, pool_id)
SELECT w.environment_id, w.id, p.id FROM worker w JOIN pool p ON p.environment_id = w.environment_id
ON CONFLICT DO NOTHING
"""


@pytest.fixture
def cast(committed_cast: Cast) -> Cast:
    """The sizes of tables that ANALYZE notes outlive a transaction, so they go with a database of the test's own."""
    return committed_cast


def _plans(cast: Cast, statement: str, returned: int) -> list[Plans]:
    """Returns the plans for the values of the statement, and for none, which both return so many rows."""
    execute("ANALYZE", {})
    params: dict[str, Any] = {
        "environment_id": cast.environment.id,
        "kinds": list(KINDS),
        "limit": _SHOWN,
        "late_after": LATE_AFTER,
        "recent": RECENT,
        "now": None,
    }
    with explained(("SELECT", "WITH")) as plans:
        assert len(fetch_all(statement, params)) == returned
    return [plans, explained_as_kept(statement, params)]


def test_the_members_are_read_once_for_all_approvals(cast: Cast) -> None:
    """Nobody may decide, so no member ends the search for one."""
    execute(_ADD_MEMBERS, {"id": cast.environment.id, "count": _MEMBERS})
    runs = Runs.of(cast)
    runs.now = database_now()
    run_id = runs.waiting()
    Approval.objects.update(role="owner", barred=[cast.owner.id])
    copy_row(Run, run_id, _APPROVALS)
    (approval,) = Approval.objects.all()
    waiting = list(
        Run.objects.filter(status="waiting").exclude(id=run_id).values_list("id", flat=True)
    )
    for other in waiting:
        Approval.objects.create(
            **{
                name: getattr(approval, name)
                for name in (
                    "environment_id", "trigger_id", "tool", "arguments", "arguments_hash", "tool_schema_hash", "role",
                    "barred", "expires_at",
                )
            },
            run_id=other,
        )  # fmt: skip
    for plans in _plans(cast, attention._APPROVALS, _SHOWN):
        assert plans.rows_read("membership") <= 3 * (_MEMBERS + 10)


def test_only_triggers_of_which_a_run_failed_lately_are_looked_at(cast: Cast) -> None:
    add_triggers(cast, _TRIGGERS, due=database_now() + timedelta(hours=1))
    execute(_ADD_HEALTH, {})
    runs = Runs.of(cast, alert_after_failures=None)
    runs.now = database_now()
    copy_ended_run(runs.ended(), 300)
    runs.now = database_now()
    runs.ended("failed", faultClass="client")
    for plans in _plans(cast, attention._FAILURES, 1):
        assert plans.buffers < 100


def test_the_user_of_each_connection_is_looked_up(cast: Cast) -> None:
    execute(_ADD_MEMBERS, {"id": cast.environment.id, "count": 5 * _MEMBERS})
    copy_row(Connection, add_oauth_connection(cast).id, 9)
    for plans in _plans(cast, attention._USERS_LEFT, 0):
        assert plans.rows_read("membership") <= 20


def test_the_workers_of_pools_that_nothing_waits_for_are_not_read(cast: Cast) -> None:
    copy_row(Pool, add_pool(cast), _POOLS, name="'Pool ' || n")
    _add_workers(cast)
    execute(_JOIN_ALL, {})
    for plans in _plans(cast, attention._POOLS, 0):
        assert plans.rows_read("pool_member") == 0


def test_runs_are_counted_only_of_the_offline_workers_that_are_returned(cast: Cast) -> None:
    runs = Runs.of(cast)
    runs.now = database_now() - timedelta(minutes=5)
    queued = runs.queue()
    _add_workers(cast)
    for worker_id in Worker.objects.exclude(id=cast.worker.worker_id).values_list("id", flat=True):
        copy_row(Run, queued, _EACH, worker_id=f"'{worker_id}'::uuid")
    for plans in _plans(cast, attention._WORKERS, _SHOWN):
        assert plans.rows_read("run") <= _WORKERS + 1 + _SHOWN * _EACH


def _add_workers(cast: Cast) -> None:
    copy_row(
        Worker, cast.worker.worker_id, _WORKERS, hostname="'other-' || n", label="'Other ' || n", last_seen_at="NULL",
        token_digest="sha256(convert_to('other-' || n, 'UTF8'))",
    )  # fmt: skip
