"""Adds the table of silences that workers ended and that no scheduler has told about yet (SPEC §14)."""

import django.db.models.deletion
from django.db import migrations, models

_WORKER = "worker_silence_worker_in_environment"


class Migration(migrations.Migration):
    dependencies = [("workers", "0008_workers_of_account")]

    operations = [
        migrations.CreateModel(
            name="WorkerSilence",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("last_seen_at", models.DateTimeField(null=True)),
                ("offline_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField()),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
            ],
            options={"db_table": "worker_silence"},
        ),
        migrations.RunSQL(
            f"ALTER TABLE worker_silence ADD CONSTRAINT {_WORKER}"
            " FOREIGN KEY (environment_id, worker_id) REFERENCES worker (environment_id, id)",
            f"ALTER TABLE worker_silence DROP CONSTRAINT {_WORKER}",
        ),
    ]
