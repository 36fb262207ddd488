"""The Django app `notices`: it notices what goes wrong with triggers and workers, and has people told (SPEC §14)."""

from django.apps import AppConfig
from django.conf import settings

from pipedai.loop import Job, register_job
from pipedai.retention import Retention, register_retention
from triggers.changes.kinds import register_changing


class NoticesConfig(AppConfig):
    name = "notices"
    verbose_name = "Incidents"

    def ready(self) -> None:
        """Connects the receivers of domain events, and registers the jobs that find late triggers, offline workers
        and reached budgets, and that remind people of incidents.
        """
        from notices import receivers  # noqa: F401 - the import connects the receivers and needs loaded models
        from notices.budgets import find_reached_budgets
        from notices.changes import INCIDENTS
        from notices.channels.registering import register_channels
        from notices.incidents import remind
        from notices.lateness import find_late_triggers
        from notices.pruning import prune_incidents
        from notices.silence import find_offline_pools, find_offline_workers

        register_channels()
        register_changing(INCIDENTS)
        register_job(Job("find-late-triggers", every_seconds=1.0, work=find_late_triggers))
        register_job(Job("find-offline-workers", every_seconds=10.0, work=find_offline_workers))
        register_job(Job("find-offline-pools", every_seconds=10.0, work=find_offline_pools))
        register_job(Job("find-reached-budgets", every_seconds=2.0, work=find_reached_budgets))
        register_job(Job("remind-of-incidents", every_seconds=10.0, work=remind))
        register_retention(
            Retention(
                "incidents",
                "incidents that are closed",
                lambda: settings.RUN_RETENTION_DAYS or None,
                prune_incidents,
            )
        )
