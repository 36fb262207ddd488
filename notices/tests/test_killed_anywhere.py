"""A scheduler is killed between any two statements: each incident is still opened, closed and told exactly once.

PostgreSQL ends the scheduler's session, as it does when it notices that a client was killed: before a statement, after
it, or instead of the commit. Another scheduler then begins all jobs anew. `test_killed_scheduler` kills a real process.
"""

import random
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from audit.models import AuditEntry
from notices.incidents import remind
from notices.lateness import find_late_triggers
from notices.models import Incident, Notice
from notices.silence import find_offline_workers
from testing.world.channels import add_channel
from testing.world.runs import Runs
from triggers.models import Run, Trigger, TriggerHealth
from triggers.runs.lifecycle import expire_runs
from triggers.schedules.firing import fire_due_ticks
from workers.models import Worker

NOON = datetime(2100, 3, 1, 12, tzinfo=UTC)
JOBS = (fire_due_ticks, expire_runs, find_late_triggers, find_offline_workers, remind)
STEP = timedelta(minutes=15)


class Killed(Exception):  # noqa: N818 - named as what happened
    """The scheduler does not live on after this."""


class Killer:
    """Kills the session before or after one of each few statements, at random."""

    def __init__(self, database, seed):
        self.seed, self.random, self.kills = seed, random.Random(seed), 0
        self.left = self._statements_to_the_next()
        params = connection.get_connection_params() | {"dbname": database}
        kept = ("host", "port", "dbname", "user", "password")
        self.session = psycopg.connect(
            **{name: params[name] for name in kept if params.get(name)}, autocommit=True
        )

    def __call__(self, execute, statement, params, many, context):
        self.left -= 1
        if self.left <= 0 and self.random.random() < 0.5:
            self._kill()
        result = execute(statement, params, many, context)
        if self.left <= 0:
            self._kill()
        return result

    def __repr__(self):
        return f"{self.kills} kills, seed {self.seed}"

    def _statements_to_the_next(self):
        """Draws at which of its statements the next scheduler is killed.

        All jobs together make 195 statements if none is killed, so at least six are.
        """
        return self.random.randint(1, 32)

    def _kill(self):
        self.kills += 1
        self.left = self._statements_to_the_next()
        pid = connection.connection.info.backend_pid
        self.session.execute(sql.SQL("SELECT pg_terminate_backend({}, 5000)").format(pid))
        raise Killed

    def run_all_jobs(self, now):
        """Runs each job of the scheduler until there is nothing to do. After a kill, another scheduler begins anew."""
        while True:
            try:
                with connection.execute_wrapper(self):
                    for job in JOBS:
                        while job(now=now):
                            pass
                return
            except Killed:
                with suppress(Exception):
                    connection.close()


@pytest.fixture
def killer(own_database):
    killer = Killer(own_database, seed=random.randrange(10**9))
    yield killer
    killer.session.close()


# How late after the full hour runs of each trigger succeed, within how many minutes they must, and the incidents of the
# kind `trigger_late` that must be there at 14:15, as minutes after noon. A scheduler looks every 15 minutes.
TRIGGERS = {
    "never": (None, 30, [(30, None)]),
    "in time": (10, 30, []),
    "late": (50, 30, [(30, 60), (90, 120)]),
    "late between two looks": (44, 31, [(31, 44), (91, 104)]),
}


@pytest.mark.long
def test_nothing_is_told_twice_and_nothing_is_missing(committed_cast, killer):
    runs = {
        name: Runs.of(
            committed_cast,
            schedule="0 * * * *",
            success_deadline_seconds=60 * deadline,
            max_retries=0,
            webhook_url=None,
        )
        for name, (_, deadline, _) in TRIGGERS.items()
    }
    Trigger.objects.filter(schedule__isnull=False).update(next_run_at=NOON)
    TriggerHealth.objects.update(check_at=NOON)
    Worker.objects.update(last_seen_at=NOON, max_concurrency=50)
    add_channel(committed_cast, "webhook")
    # The lease of this run ends soon, so its trigger fails.
    runs["never"].now = NOON
    runs["never"].running()
    for number in range(1, 10):
        now = NOON + number * STEP
        for name, (minute, *_) in TRIGGERS.items():
            succeeded_at = (now - STEP).replace(minute=minute or 0)
            if minute and now - STEP < succeeded_at <= now:
                runs[name].now = succeeded_at
                runs[name].ended()
        killer.run_all_jobs(now)
    assert killer.kills >= 5, killer
    late = {
        name: [
            (minutes(row.opened_at), row.closed_at and minutes(row.closed_at))
            for row in Incident.objects.filter(
                kind="trigger_late", subject_id=runs[name].trigger_id
            ).order_by("opened_at")
        ]
        for name in TRIGGERS
    }
    assert late == {name: expected for name, (*_, expected) in TRIGGERS.items()}, killer
    others = Incident.objects.exclude(kind="trigger_late").values_list("kind", "closed_at")
    assert sorted(others) == [("trigger_failing", None), ("worker_offline", None)], killer
    expected = [(each.id, each.kind) for each in Incident.objects.all()]
    expected += [(id_, f"{kind}.recovered") for id_, kind in closed()]
    # By the database's clock, which the end of a run goes by, that was long ago: one reminder is due.
    expected += [(each.id, each.kind) for each in Incident.objects.filter(kind="trigger_failing")]
    told = Counter(Notice.objects.values_list("incident_id", "event"))
    assert told == Counter(expected), killer
    audited = Counter(
        AuditEntry.objects.filter(target_type="incident").values_list("target_id", "action")
    )
    opened = [(each.id, "incident.opened") for each in Incident.objects.all()]
    assert audited == Counter(opened + [(id_, "incident.closed") for id_, _ in closed()]), killer
    assert Run.objects.filter(source="schedule").count() == 3 * len(TRIGGERS), killer


def closed():
    return Incident.objects.filter(closed_at__isnull=False).values_list("id", "kind")


def minutes(moment):
    return (moment - NOON) // timedelta(minutes=1)
