"""The workers app: registered machines, and the protocol they speak."""

from django.apps import AppConfig

from workspaces.dependents import register_dependents


class WorkersConfig(AppConfig):
    """Workers."""

    name = "workers"

    def ready(self) -> None:
        """Says what keeps an environment from being deleted."""
        from workers.models import Worker

        live = Worker.objects.filter(deleted_at__isnull=True)
        register_dependents(
            "worker", lambda environment_id: live.filter(environment_id=environment_id).count()
        )
