"""Adds foreign keys that contain the environment, so that no row can refer to a row of another environment.

A key is deferred if one transaction inserts the row before the row that it refers to. The migration also makes the run
table keep free room in its pages, because every heartbeat updates a row in place.
"""

from django.db import migrations

# (table, column, referenced table, deferred)
KEYS = (
    ("trigger", "worker_id", "worker", False),
    ("trigger", "revision_id", "trigger_revision", True),
    ("trigger", "mcp_key_id", "data_key", False),
    ("trigger", "webhook_key_id", "data_key", False),
    ("trigger_revision", "trigger_id", "trigger", False),
    ("run", "trigger_id", "trigger", False),
    ("run", "revision_id", "trigger_revision", False),
    ("run", "worker_id", "worker", False),
    ("run", "retry_of_id", "run", False),
    ("run_text", "run_id", "run", False),
    ("idempotency_key", "trigger_id", "trigger", False),
    ("idempotency_key", "run_id", "run", True),
    ("delivery", "trigger_id", "trigger", False),
    ("delivery", "run_id", "run", False),
)


def add(table: str, column: str, target: str, deferred: bool) -> migrations.RunSQL:
    name = f"{table}_{column.removesuffix('_id')}_in_environment"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} "
        f"FOREIGN KEY (environment_id, {column}) REFERENCES {target} (environment_id, id)"
        + (" DEFERRABLE INITIALLY DEFERRED" if deferred else ""),
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    dependencies = [("triggers", "0001_initial")]

    operations = [
        *(add(*key) for key in KEYS),
        migrations.RunSQL(
            "ALTER TABLE run SET (fillfactor = 80)", "ALTER TABLE run RESET (fillfactor)"
        ),
    ]
