"""The triggers app: triggers, their runs and the deliveries of their webhooks."""

from django.apps import AppConfig

from pipedai.loop import Job, register_job


class TriggersConfig(AppConfig):
    """Triggers, runs, deliveries."""

    name = "triggers"

    def ready(self) -> None:
        """Registers the background work on runs."""
        # Models must be loaded first.
        from triggers.lifecycle import expire_runs
        from triggers.scheduling import fire_due_ticks

        register_job(Job("fire-ticks", every_seconds=0.25, work=fire_due_ticks))
        register_job(Job("expire-runs", every_seconds=1.0, work=expire_runs))
