"""`manage.py runscheduler`: the process that does background work, such as firing schedules and sending webhooks."""

import contextlib
import os
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from pipedai import metrics, tracing
from pipedai.embedded.server import of_settings
from pipedai.logs import get_logger, log_start
from pipedai.loop import Job, registered_jobs, run_jobs, stop_on_signals
from triggers.heartbeats import Heartbeat

log = get_logger(__name__)


class Command(BaseCommand):
    """Runs the jobs of all apps until SIGTERM or Ctrl-C."""

    help = (
        "Does what is due in the background, until SIGTERM or Ctrl-C: fires schedules, ends runs"
        " whose lease or deadline has passed (and queues their retries), sends webhooks, removes what is"
        " older than its retention, moves staff's authenticators to the newest master key, and makes"
        " the audit log's partitions ahead of time. Any number may run side by side, be killed at any"
        " instant and be restarted."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if server := of_settings():
            server.verify_made()
        log_start("scheduler")
        stop = stop_on_signals()
        heartbeat = Heartbeat()
        beat = Job("beat", heartbeat.every_seconds, heartbeat.beat)
        jobs = _traced(_measured((beat, *registered_jobs())))
        log.info("scheduler.started", id=str(heartbeat.id), jobs=[job.name for job in jobs])
        done = run_jobs(jobs, stop)
        with contextlib.suppress(DatabaseError):
            heartbeat.end()
        connection.close()
        tracing.flush()
        log.info("scheduler.stopped", id=str(heartbeat.id), done=dict(done))


def _measured(jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """Wraps the jobs if the settings ask for metrics. Raises CommandError for bad settings."""
    if not settings.SCHEDULER_METRICS_BIND:
        return jobs
    if not settings.METRICS_TOKEN:
        raise CommandError(
            "SCHEDULER_METRICS_BIND needs a METRICS_TOKEN, which guards the metrics."
        )
    os.environ.pop(metrics.VARIABLE, None)
    # The import stands here, so that it takes no time and memory while metrics are off.
    from pipedai.metrics import scheduler

    try:
        address = scheduler.serve_metrics(settings.SCHEDULER_METRICS_BIND, settings.METRICS_TOKEN)
    except ValueError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(
            f"Metrics can't be served at {settings.SCHEDULER_METRICS_BIND}: {error.strerror}."
        ) from None
    log.info("metrics.served", address=address)
    return scheduler.measured(jobs)


def _traced(jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """Wraps the jobs if the settings ask for traces. Raises CommandError for bad settings."""
    try:
        if not tracing.is_on():
            return jobs
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None
    # The import stands here, so that it takes no time and memory while tracing is off.
    from pipedai.tracing.provider import traced

    tracing.start("pipedai-scheduler")
    return traced(jobs)
