"""The triggers app: triggers, their runs and the deliveries of their webhooks."""

from django.apps import AppConfig

from pipedai.loop import Job, register_job


class TriggersConfig(AppConfig):
    """Triggers, runs, deliveries."""

    name = "triggers"

    def ready(self) -> None:
        """Registers the background work on runs."""
        from triggers.lifecycle import expire_runs

        register_job(Job("expire-runs", every_seconds=1.0, work=expire_runs))
