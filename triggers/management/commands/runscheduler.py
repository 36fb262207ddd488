"""manage.py runscheduler: the background process."""

from typing import Any

from django.core.management.base import BaseCommand

from pipedai.logs import get_logger
from pipedai.loop import registered_jobs, run_jobs, stop_on_signals

log = get_logger(__name__)


class Command(BaseCommand):
    """Runs what is due, until SIGTERM."""

    help = (
        "Does what is due in the background, until SIGTERM or Ctrl-C: ends runs whose lease or"
        " deadline has passed (and queues their retries), and makes the audit log's partitions"
        " ahead of time. Any number may run side by side, be killed at any instant and be restarted."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs the registered jobs."""
        stop = stop_on_signals()
        jobs = registered_jobs()
        log.info("scheduler.started", jobs=[job.name for job in jobs])
        run_jobs(jobs, stop)
        log.info("scheduler.stopped")
