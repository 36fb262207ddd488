"""Adds the keys by which a row can refer only to rows of its own environment."""

from django.db import migrations

from pipedai.table_rules import tenant_key


class Migration(migrations.Migration):
    dependencies = [("triggers", "0001_initial")]

    operations = [
        tenant_key("budget", "trigger_id", "trigger"),
        tenant_key("budget_window", "budget_id", "budget"),
        tenant_key("delivery", "run_id", "run"),
        tenant_key("delivery", "trigger_id", "trigger"),
        tenant_key("delivery_attempt", "delivery_id", "delivery"),
        tenant_key("idempotency_key", "run_id", "run", "DEFERRABLE INITIALLY DEFERRED"),
        tenant_key("idempotency_key", "trigger_id", "trigger"),
        tenant_key("run", "avoided_worker_id", "worker"),
        tenant_key("run", "pool_id", "pool"),
        tenant_key("run", "rerun_of_id", "run", "ON DELETE SET NULL (rerun_of_id)"),
        tenant_key("run", "retry_of_id", "run"),
        tenant_key("run", "revision_id", "trigger_revision"),
        tenant_key("run", "trigger_id", "trigger"),
        tenant_key("run", "worker_id", "worker"),
        tenant_key("run_event_log", "run_id", "run"),
        tenant_key("run_reservation", "run_id", "run", "ON DELETE CASCADE"),
        tenant_key("run_reservation", "window_id", "budget_window"),
        tenant_key("run_result", "run_id", "run"),
        tenant_key("run_text", "run_id", "run"),
        tenant_key("tick", "blocked_by_id", "run", "ON DELETE SET NULL (blocked_by_id)"),
        tenant_key("tick", "run_id", "run", "DEFERRABLE INITIALLY DEFERRED"),
        tenant_key("tick", "trigger_id", "trigger"),
        tenant_key("trigger", "mcp_key_id", "data_key"),
        tenant_key("trigger", "pool_id", "pool"),
        tenant_key("trigger", "revision_id", "trigger_revision", "DEFERRABLE INITIALLY DEFERRED"),
        tenant_key("trigger", "webhook_key_id", "data_key"),
        tenant_key("trigger", "worker_id", "worker"),
        tenant_key("trigger_health", "trigger_id", "trigger"),
        tenant_key("trigger_revision", "trigger_id", "trigger"),
    ]
