"""Adds the schema of a run's output, and a table for the output and the list of tool calls (SPEC §18)."""

import django.db.models.deletion
from django.db import migrations, models

import triggers.models.fields


class Migration(migrations.Migration):
    dependencies = [
        ("triggers", "0016_tool_calls"),
        ("workspaces", "0009_host_keys_valid"),
    ]

    operations = [
        migrations.AddField(
            model_name="triggerrevision",
            name="output_schema",
            field=triggers.models.fields.JSONAsGivenField(null=True),
        ),
        migrations.CreateModel(
            name="RunResult",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="result",
                        serialize=False,
                        to="triggers.run",
                    ),
                ),
                ("output", triggers.models.fields.JSONAsGivenField(null=True)),
                ("tool_calls", triggers.models.fields.JSONAsGivenField(null=True)),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
            ],
            options={"db_table": "run_result"},
        ),
        migrations.RunSQL(
            "ALTER TABLE run_result ADD CONSTRAINT run_result_run_in_environment "
            "FOREIGN KEY (environment_id, run_id) REFERENCES run (environment_id, id)",
            "ALTER TABLE run_result DROP CONSTRAINT run_result_run_in_environment",
        ),
    ]
