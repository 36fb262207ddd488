"""Has autovacuum clean the tables that change most after a hundredth of their rows changed, not after a fifth (SPEC §22).

A run changes six times in its life. With PostgreSQL's own settings half a million runs held 62,000 dead rows, and the
overview took five times as long. The lock of this statement stops neither readers nor writers.
"""

from django.db import migrations

_TABLES = ("run", "run_text", "run_result", "tick", "delivery")
_PARAMETERS = (
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_analyze_scale_factor",
)


def _settings(table: str) -> migrations.RunSQL:
    given = ", ".join(f"{name} = 0.01" for name in _PARAMETERS)
    return migrations.RunSQL(
        f"ALTER TABLE {table} SET ({given})",
        f"ALTER TABLE {table} RESET ({', '.join(_PARAMETERS)})",
    )


class Migration(migrations.Migration):
    dependencies = [("triggers", "0019_web_heartbeat")]

    operations = [_settings(table) for table in _TABLES]
