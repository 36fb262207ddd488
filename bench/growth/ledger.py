"""Makes up a year of runs in an empty database, for bench.growth.

    python -m bench.growth.ledger RUNS

The service's own code makes one run of each kind. PostgreSQL copies them, and adds what a real run leaves in other
tables.
"""

import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import django

ENVIRONMENTS = 50
_YEAR = timedelta(days=365)
# The newest runs have all of their audit entries, and the older ones the last entry alone, since all of them would take
# four times the space of the runs.
_AUDITED_WHOLLY = timedelta(days=30)
# What comes due and what is lost when these are measured, which is the same in a ledger of any size.
DUE, LOST = 100, 20
# An environment has so many workers, and each of them one trigger without a schedule and so many with one.
_WORKERS, _SCHEDULED = 5, 4

# Copies ended runs: one after another in time, and most of them for the first triggers of the environment.
_RUNS = """
INSERT INTO run ({columns})
SELECT {values}
FROM generate_series(0, %(count)s - 1) n
JOIN (SELECT row_number() OVER (ORDER BY id) - 1 AS nth, run.* FROM run WHERE id = ANY(%(samples)s)) o
    ON o.nth = n %% %(kinds)s
JOIN (SELECT row_number() OVER (ORDER BY id) - 1 AS nth, count(*) OVER () AS triggers, trigger.* FROM trigger
      WHERE environment_id = %(environment)s AND worker_id IS NOT NULL) t
    ON t.nth = floor(power((n * 7919 %% 10007) / 10007.0, 2) * t.triggers)
CROSS JOIN LATERAL (SELECT %(since)s::timestamptz + n * %(step)s::interval AS ended) span
CROSS JOIN LATERAL (SELECT ended, ended - (n * 7919 %% 600000) * interval '1 millisecond' AS queued) made
ON CONFLICT DO NOTHING
"""
_RUN = {
    "id": "uuidv7(made.queued - clock_timestamp())",
    "environment_id": "t.environment_id",
    "trigger_id": "t.id",
    "revision_id": "t.revision_id",
    "worker_id": "t.worker_id",
    "source": "CASE WHEN t.schedule IS NOT NULL THEN 'schedule' WHEN n % 5 = 0 THEN 'manual' ELSE 'api' END",
    "scheduled_for": "CASE WHEN t.schedule IS NOT NULL THEN made.queued END",
    "queued_at": "made.queued",
    "available_at": "made.queued",
    "claimed_at": "CASE WHEN o.claimed_at IS NOT NULL THEN made.queued END",
    "started_at": "CASE WHEN o.started_at IS NOT NULL THEN made.queued END",
    "ended_at": "made.ended",
    "attempt": "1",
    "retry_of_id": "NULL",
}
# Copies each run that is to have a retry and has none, as its retry, which failed as well.
_RETRIES = """
INSERT INTO run ({columns})
SELECT {values}
FROM run o
WHERE o.environment_id = %(environment)s AND o.retried AND NOT EXISTS (SELECT FROM run WHERE retry_of_id = o.id)
"""
_RETRY = {
    "id": "uuidv7(o.ended_at - clock_timestamp())",
    "source": "'retry'",
    "attempt": "o.attempt + 1",
    "retry_of_id": "o.id",
    "retried": "false",
    "queued_at": "o.ended_at",
    **{
        name: f"o.{name} + (o.ended_at - o.queued_at)"
        for name in ("available_at", "claimed_at", "started_at", "ended_at")
    },
}
# What runs leave in other tables. A hundredth of the due times found the run before still at work.
_LEFT = (
    """
INSERT INTO run_text (run_id, environment_id, mcp_url, error_message, payload)
SELECT r.id, r.environment_id, 'https://mcp.example/v1', CASE r.status WHEN 'failed' THEN 'It answered 401.' END,
    CASE r.source WHEN 'api' THEN json '{"ticket": 4711}' END
FROM run r WHERE r.environment_id = %(environment)s AND r.claimed_at IS NOT NULL ON CONFLICT DO NOTHING
""",
    """
INSERT INTO tick (id, environment_id, trigger_id, tick_at, last_tick_at, decision, run_id, decided_at,
    missed_count)
SELECT r.id, r.environment_id, r.trigger_id, r.scheduled_for, r.scheduled_for, 'fired', r.id, r.queued_at, 0
FROM run r WHERE r.environment_id = %(environment)s AND r.source = 'schedule'
UNION ALL
SELECT gen_random_uuid(), r.environment_id, r.trigger_id, r.ended_at, r.ended_at, 'skipped_overlap', NULL, r.ended_at, 0
FROM run r WHERE r.environment_id = %(environment)s AND r.source = 'schedule' AND extract(second FROM r.ended_at) < 0.6
ON CONFLICT DO NOTHING
""",
    """
WITH made AS (
    INSERT INTO delivery (id, environment_id, trigger_id, run_id, message_id, url, host, body, status, attempt_count,
        created_at, delivered_at, next_attempt_at)
    SELECT gen_random_uuid(), r.environment_id, r.trigger_id, r.id, 'msg_' || r.id, t.webhook_url, 'hooks.example',
        '{}', ended.status, CASE ended.status WHEN 'dead' THEN 7 ELSE 1 END, r.ended_at,
        CASE ended.status WHEN 'delivered' THEN r.ended_at END, NULL
    FROM run r JOIN trigger t ON t.id = r.trigger_id AND t.webhook_url IS NOT NULL,
        LATERAL (SELECT CASE WHEN extract(second FROM r.ended_at) < 2 THEN 'dead' ELSE 'delivered' END AS status) ended
    WHERE r.environment_id = %(environment)s AND r.ended_at IS NOT NULL
    RETURNING *)
INSERT INTO delivery_attempt (environment_id, delivery_id, n, at, status_code, duration_ms, response_body)
SELECT d.environment_id, d.id, n, d.created_at + n * interval '10 seconds',
    CASE d.status WHEN 'dead' THEN 503 ELSE 200 END, 90, 'ok'
FROM made d, generate_series(1, d.attempt_count) n
""",
    """
INSERT INTO audit_entry (id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, created_at)
SELECT uuidv7(step.at - clock_timestamp()), r.environment_id, step.action, step.actor,
    CASE step.actor WHEN 'worker' THEN r.worker_id WHEN 'api_key' THEN %(key)s::uuid END, 'run', r.id,
    jsonb_build_object('triggerId', r.trigger_id), step.at
FROM run r, LATERAL (VALUES
    (CASE r.source WHEN 'retry' THEN 'run.retried' WHEN 'schedule' THEN 'run.scheduled' ELSE 'run.created' END,
     CASE WHEN r.source IN ('api', 'manual') THEN 'api_key' ELSE 'system' END, r.queued_at),
    ('run.claimed', 'worker', r.claimed_at), ('run.started', 'worker', r.started_at),
    (CASE r.ended_by WHEN 'lease' THEN 'run.lost' WHEN 'deadline' THEN 'run.timed-out' WHEN 'user' THEN 'run.canceled'
     ELSE 'run.completed' END, CASE r.ended_by WHEN 'worker' THEN 'worker' ELSE 'system' END, r.ended_at)
    ) step (action, actor, at)
WHERE r.environment_id = %(environment)s AND step.at IS NOT NULL
    AND (step.at = r.ended_at OR r.queued_at > %(wholly)s::timestamptz)
""",
)


def main(runs: int) -> None:
    """Makes the environments, and about so many runs in them: a tenth is of the first, and ever fewer of the others."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    from audit.receivers import add_partitions_of
    from pipedai.sql import database_now
    from pipedai.timeouts import session_without_timeouts

    now = database_now()
    weights = [1 / number**0.6 for number in range(1, ENVIRONMENTS + 1)]
    add_partitions_of(now - timedelta(days=days) for days in range(0, _YEAR.days + 31, 27))
    samples: list[UUID] = []
    with session_without_timeouts():
        for weight in weights:
            samples = _add_environment(int(runs * weight / sum(weights)), samples, now)


def _add_environment(runs: int, samples: list[UUID], now: datetime) -> list[UUID]:
    """Adds an environment with so many runs, and returns the runs of which they are copies."""
    from pipedai.sql import execute
    from testing.world.cast import make_cast
    from testing.world.many_triggers import add_triggers
    from testing.world.runs import WEBHOOK_URL, Runs, allow

    cast = make_cast()
    cast.mint("pwk")
    for number in range(_WORKERS):
        worker_id = cast.register(f"machine-{number}", max_concurrency=6).worker_id
        hook = None if number % 2 else WEBHOOK_URL
        due = now + timedelta(hours=1)
        add_triggers(cast, _SCHEDULED, due=due, worker_id=worker_id, webhook_url=hook)
    of_it = Runs.of(cast, max_retries=1)
    of_it.now = now - timedelta(minutes=1)
    is_first = not samples
    samples = samples or _samples(of_it)
    of_it.queue()
    environment = cast.environment.id
    add_ended(environment, runs, samples, since=now - _YEAR, until=now)
    if is_first:
        allow(cast.worker.worker_id, 50)
        for _ in range(LOST // 2):
            of_it.claimed()
            of_it.running()
        add_triggers(cast, DUE, schedule="* * * * *", due=now.replace(second=0, microsecond=0))
    key = cast.environment.api_keys.filter(kind="pwk").values_list("id", flat=True)[0]
    for statement in _LEFT:
        execute(
            statement, {"environment": environment, "key": key, "wholly": now - _AUDITED_WHOLLY}
        )
    return samples


def _samples(runs: "Runs") -> list[UUID]:  # type: ignore[name-defined]  # noqa: F821
    """Returns ended runs, most of which succeeded."""
    used = {"inputTokens": 5120, "outputTokens": 640, "cacheReadTokens": 2048, "costUsd": "0.0215",
            "numTurns": 4, "sessionId": "s-1", "model": "sonnet"}  # fmt: skip
    succeeded = [runs.ended(shortMessage="Nothing needed attention.", **used) for _ in range(27)]
    failed = [
        runs.ended("failed", faultClass=fault, **used) for fault in ("client", "client", "infra")
    ]
    canceled = runs.queue()
    runs.cancel(canceled)
    return [*succeeded, *failed, runs.ended("timed_out", **used), canceled]


def add_ended(
    environment: UUID, count: int, samples: Sequence[UUID], *, since: datetime, until: datetime
) -> None:
    """Adds ended runs to an environment, as copies of these, and retries of those that failed for infrastructure. They
    end one after another between the two moments, after at most ten minutes each.
    """
    from pipedai.sql import execute
    from triggers.models import Run

    columns = [str(field.column) for field in Run._meta.concrete_fields]
    params = {
        "environment": environment, "count": count, "samples": list(samples), "kinds": len(samples), "since": since,
        "step": (until - since) / max(1, count),
    }  # fmt: skip
    for statement, changed in ((_RUNS, _RUN), (_RETRIES, _RETRY)):
        values = (changed.get(column, f"o.{column}").replace("%", "%%") for column in columns)
        execute(statement.format(columns=", ".join(columns), values=", ".join(values)), params)


if __name__ == "__main__":
    main(int(sys.argv[1]))
