"""Makes the environments, API keys, workers and triggers to which the made-up runs of `seed_demo --scale` belong."""

import random
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.db import transaction

from pipedai.api.serializers import validated
from pipedai.events import SYSTEM
from pipedai.sql import database_now, execute
from triggers.models import Trigger
from triggers.serializers import TriggerBody
from triggers.services import TRIGGERS
from workers.demo.size import DAY_SECONDS, SCHEDULED_SHARE, SCHEDULES, SPAN, Size
from workers.models import Worker
from workers.protocol.serializers import RegisterBody
from workers.registration import register_worker
from workspaces.api_keys import mint_api_key
from workspaces.models import ApiKey, Environment, Workspace
from workspaces.services import create_environment, create_workspace

_JOBS = ("Triage tickets", "Report on sales", "Review pull requests", "Check backups", "Sum up the news",
         "Clean the inbox", "Watch the prices", "Test the shop", "Update the docs", "Answer reviews")  # fmt: skip
_MODELS = ("opus", "sonnet", "haiku", None)
_HOSTS = ("build", "office", "mac-mini", "gpu", "edge")
_MOST_TRIGGERS = 60


# The number of the PostgreSQL advisory lock that `lock_demo` takes. No other code uses this number.
_LOCK = 0x5CA1E


def lock_demo() -> None:
    """Waits until no other `seed_demo --scale` is in a transaction, so that two of them don't make the same rows."""
    execute("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": _LOCK})


def find_or_make_cast(size: Size, user_id: UUID) -> Workspace:
    """Returns the demo workspace of this size. A missing one is made, with all that belongs to it, in one transaction.
    The history of runs ends at its `created_at`.
    """
    with transaction.atomic():
        lock_demo()
        found = Workspace.objects.filter(created_by_id=user_id, name=size.workspace).first()
        if found is not None:
            return found
        workspace = create_workspace(name=size.workspace, user_id=user_id, actor=SYSTEM)
        workspace.refresh_from_db()
        rng = random.Random(size.seed)  # noqa: S311 - reproducible, and no secret
        for number, share in enumerate(size.shares(), start=1):
            environment = create_environment(
                workspace_id=workspace.id,
                name=f"customer-{number:03}",
                user_id=user_id,
                actor=SYSTEM,
            )
            _furnish(environment, size.runs * share, workspace.created_at, user_id, rng)
    return workspace


def _furnish(
    environment: Environment, runs: float, until: datetime, user_id: UUID, rng: random.Random
) -> None:
    began = until - SPAN
    mint = partial(mint_api_key, environment_id=environment.id, user_id=user_id, actor=SYSTEM)
    mint(name="Automation", kind="pwk")
    workers = []
    for number in range(min(12, 2 + int(runs / 15_000))):
        _, token = mint(name="Registration", kind="wrk")
        workers.append(_register(token, f"{rng.choice(_HOSTS)}-{number + 1}", rng))
    for worker_id in workers:
        silent = rng.choice((5, 20, 90, 40_000))
        seen_at = database_now() - timedelta(seconds=silent)
        Worker.objects.filter(id=worker_id).update(last_seen_at=seen_at, created_at=began)
    ApiKey.objects.filter(environment=environment).update(created_at=began)
    Environment.objects.filter(id=environment.id).update(created_at=began)
    plans = _schedules(runs * SCHEDULED_SHARE, rng)
    plans += [(None, SPAN)] * rng.randint(2, 4)
    for number, (schedule, age) in enumerate(plans, start=1):
        trigger_id = _add_trigger(environment, number, schedule, rng.choice(workers), rng)
        Trigger.objects.filter(id=trigger_id).update(created_at=until - age)


def _schedules(ticks: float, rng: random.Random) -> list[tuple[str | None, timedelta]]:
    """Chooses the schedules and the ages of an environment's triggers, with about `ticks` due times in all."""
    plans: list[tuple[str | None, timedelta]] = []
    while ticks >= 1 and len(plans) < _MOST_TRIGGERS:
        schedule = rng.choice(list(SCHEDULES))
        fits = ticks * SCHEDULES[schedule][0] / DAY_SECONDS
        if fits < SPAN.days / 4 and schedule != "30 6 * * *":
            continue
        days = min(fits, SPAN.days * rng.uniform(0.25, 1))
        plans.append((schedule, timedelta(days=days)))
        ticks -= days * DAY_SECONDS / SCHEDULES[schedule][0]
    return plans


def _register(token: str, hostname: str, rng: random.Random) -> UUID:
    values = validated(
        RegisterBody,
        {
            "hostname": hostname,
            "os": rng.choice(("Debian 13", "macOS 26", "Ubuntu 24.04")),
            "version": rng.choice(("1.0.0", "1.1.2", "1.2.0")),
            "maxConcurrency": rng.randint(1, 6),
        },
    )
    return register_worker(token=token, values=values, actor=SYSTEM).worker_id


def _add_trigger(
    environment: Environment,
    number: int,
    schedule: str | None,
    worker_id: UUID,
    rng: random.Random,
) -> UUID:
    job = rng.choice(_JOBS)
    data = {
        "name": f"{job} {number}",
        "description": f"Made by seed_demo --scale, for {environment.name}.",
        "prompt": f"{job}, and say in three sentences what you found and what you did about it.",
        "model": rng.choice(_MODELS),
        "mcpUrl": f"https://mcp.{environment.name}.example/v1",
        "mcpHeaders": {"Authorization": "Bearer not-a-real-token"},
        "schedule": schedule,
        "workerId": str(worker_id),
        "overlapPolicy": "skip",
        "maxRetries": rng.randint(0, 3),
        "timeoutSeconds": rng.choice((600, 1800, 3600)),
    }
    if rng.random() < 0.25:
        data["webhookUrl"] = f"https://hooks.{environment.name}.example/runs"
        data["webhookSecret"] = "not-a-real-webhook-secret"
    values = validated(TriggerBody, data)
    return TRIGGERS.create(environment_id=environment.id, actor=SYSTEM, values=values)
