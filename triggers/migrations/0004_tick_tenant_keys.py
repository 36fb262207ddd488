"""Adds the foreign keys of ticks that contain the environment; see 0002.

The key to the run is deferred, because the scheduler inserts the tick before its run.
"""

from django.db import migrations

KEYS = (("trigger_id", "trigger", False), ("run_id", "run", True))


def add(column: str, target: str, deferred: bool) -> migrations.RunSQL:
    name = f"tick_{target}_in_environment"
    return migrations.RunSQL(
        f"ALTER TABLE tick ADD CONSTRAINT {name} "
        f"FOREIGN KEY (environment_id, {column}) REFERENCES {target} (environment_id, id)"
        + (" DEFERRABLE INITIALLY DEFERRED" if deferred else ""),
        f"ALTER TABLE tick DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    dependencies = [("triggers", "0003_ticks")]

    operations = [add(*key) for key in KEYS]
