"""The audit app, which writes one row for every action that changes something. Rows are never changed afterwards."""

from django.apps import AppConfig

from pipedai.deployment import Probe, register_probe
from pipedai.loop import Job, register_job
from pipedai.retention import Retention, register_retention


class AuditConfig(AppConfig):
    name = "audit"

    def ready(self) -> None:
        """Subscribes to the domain events, and registers two jobs: one makes the log's monthly partitions, the other
        drops old ones.
        """
        from audit import receivers  # noqa: F401 - importing it subscribes it; the models must be loaded before
        from audit.deployment import partitions_are_ahead
        from audit.partitions import AT_LEAST_DAYS, add_partitions, drop_partitions

        register_probe(Probe("audit log", partitions_are_ahead))
        register_job(Job("add-audit-partitions", every_seconds=3600.0, work=add_partitions))
        register_retention(
            Retention(
                "audit-log",
                "months of the audit log",
                lambda: None,
                drop_partitions,
                at_least=AT_LEAST_DAYS,
                automatic=False,
            )
        )
