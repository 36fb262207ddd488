"""Registers what the triggers app adds to the service: background jobs, checks of `check_deploy`, how long rows are
kept, and columns with encrypted values.
"""

from django.apps import AppConfig
from django.conf import settings

from pipedai.deployment import Probe, register_probe
from pipedai.loop import Job, register_job
from pipedai.retention import Retention, register_retention
from pipedai.server.heart import register_beat
from workspaces.dependents import register_dependents
from workspaces.encryption.sealed_fields import register_sealed_field


class TriggersConfig(AppConfig):
    name = "triggers"
    verbose_name = "Triggers and runs"

    def ready(self) -> None:
        """Registers the app's background jobs, webhooks, checks, retentions and encrypted columns, and which of its
        rows keep an environment from being deleted.
        """
        # These imports stand inside the method because they import models, which Django loads before it calls `ready`.
        from pipedai.outgoing import register_kind
        from triggers import pausing  # noqa: F401 - importing it subscribes it to events
        from triggers.budgets.pruning import WINDOW_DAYS, prune_windows
        from triggers.budgets.settling import settle_left_over
        from triggers.changes.kinds import register_changing
        from triggers.changes.runs import RUNS
        from triggers.changes.telling import read_watches  # importing it also subscribes it
        from triggers.deployment import schedulers_live, work_is_on_time
        from triggers.models import Run, Trigger
        from triggers.pruning import prune_deliveries, prune_idempotency_keys, prune_runs
        from triggers.run_events.partitions import add_partitions
        from triggers.run_events.pruning import AT_LEAST_DAYS, drop_partitions
        from triggers.runs.lifecycle import expire_queued_runs, expire_runs
        from triggers.runs.reachability import beat_of_this_process
        from triggers.schedules.firing import fire_due_ticks
        from triggers.secrets import MCP_HEADERS, WEBHOOK_SECRET
        from triggers.webhooks.sending import WEBHOOKS

        register_probe(Probe("schedulers", schedulers_live))
        register_probe(Probe("background", work_is_on_time))
        register_beat(beat_of_this_process)
        register_job(Job("fire-ticks", every_seconds=0.25, work=fire_due_ticks))
        register_job(Job("expire-runs", every_seconds=1.0, work=expire_runs))
        register_job(Job("expire-queued-runs", every_seconds=1.0, work=expire_queued_runs))
        register_job(Job("settle-reservations", every_seconds=5.0, work=settle_left_over))
        register_job(Job("read-watches", every_seconds=1.0, work=read_watches))
        register_job(Job("add-run-event-partitions", every_seconds=3600.0, work=add_partitions))
        register_changing(RUNS)
        register_kind(WEBHOOKS)
        triggers = Trigger.objects.filter(deleted_at__isnull=True)
        runs = Run.objects.filter(ended_at__isnull=True)
        register_dependents("trigger", lambda id_: triggers.filter(environment_id=id_).count())
        register_dependents("unfinished run", lambda id_: runs.filter(environment_id=id_).count())
        register_retention(
            Retention(
                "runs",
                "ended runs with their texts, ticks and deliveries",
                lambda: settings.RUN_RETENTION_DAYS or None,
                prune_runs,
            )
        )
        register_retention(
            Retention(
                "deliveries",
                "webhooks that were delivered or given up, with their attempts",
                lambda: settings.DELIVERY_RETENTION_DAYS or None,
                prune_deliveries,
            )
        )
        register_retention(
            Retention(
                "run-events",
                "days of run events",
                lambda: settings.RUN_EVENTS_DAYS,
                drop_partitions,
                at_least=AT_LEAST_DAYS,
            )
        )
        register_retention(
            Retention(
                "idempotency-keys",
                "remembered Idempotency-Keys, which count for a day",
                lambda: 1,
                prune_idempotency_keys,
            )
        )
        register_retention(
            Retention(
                "budget-windows",
                "past days and months of budgets, whose runs are removed",
                lambda: WINDOW_DAYS,
                prune_windows,
            )
        )
        for field in (MCP_HEADERS, WEBHOOK_SECRET):
            register_sealed_field(field)
