"""The Django app `workers`: the machines that execute runs, how they register, and the calls that they make."""

from django.apps import AppConfig

from pipedai.retention import Retention, register_retention
from triggers.changes.kinds import register_changing
from workspaces.dependents import register_dependents


class WorkersConfig(AppConfig):
    name = "workers"

    def ready(self) -> None:
        """Registers workers with the streams of environments, and two rules: an environment can't be deleted while it
        has registered workers, and old worker events and pairings are deleted.
        """
        from workers import receivers  # noqa: F401 - importing it subscribes it; the models must be loaded before
        from workers.changes import WORKERS
        from workers.models import Worker
        from workers.pruning import prune_events, prune_pairings

        register_changing(WORKERS)
        live = Worker.objects.filter(deleted_at__isnull=True)
        register_dependents(
            "worker", lambda environment_id: live.filter(environment_id=environment_id).count()
        )
        register_retention(Retention("worker-events", "events of workers", lambda: 1, prune_events))
        register_retention(
            Retention("pairings", "requests for pairing that expired", lambda: 1, prune_pairings)
        )
