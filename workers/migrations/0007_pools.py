"""Adds pools of workers, and the account and usage limit of a worker (SPEC §16).

The foreign keys of memberships contain the environment, so that no worker can be in a pool of another environment.
"""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models.functions import Lower, Now

import pipedai.ids


class Migration(migrations.Migration):
    dependencies = [
        ("workers", "0006_one_silence_in_environment"),
        ("workspaces", "0012_pause_valid"),
    ]

    operations = [
        migrations.CreateModel(
            name="Pool",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("description", models.CharField(blank=True, max_length=2000)),
                ("created_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("deleted_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "pool",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment", "id"), name="pool_in_environment"
                    ),
                    models.UniqueConstraint(
                        models.F("environment"),
                        Lower("name"),
                        condition=models.Q(("deleted_at__isnull", True)),
                        name="pool_name_free_in_environment",
                    ),
                ],
                "indexes": [
                    models.Index(
                        fields=["environment", "created_at", "id"],
                        name="pool_listed",
                        condition=models.Q(("deleted_at__isnull", True)),
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PoolMember",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "worker_id",
                        "pool_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
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
                (
                    "pool",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="members",
                        to="workers.pool",
                    ),
                ),
                ("created_at", models.DateTimeField(db_default=Now(), editable=False)),
            ],
            options={
                "db_table": "pool_member",
                "indexes": [
                    models.Index(fields=["pool", "worker"], name="pool_member_of_pool"),
                ],
            },
        ),
        *(
            migrations.RunSQL(
                f"ALTER TABLE pool_member ADD CONSTRAINT pool_member_{target}_in_environment FOREIGN KEY"
                f" (environment_id, {target}_id) REFERENCES {target} (environment_id, id)",
                f"ALTER TABLE pool_member DROP CONSTRAINT pool_member_{target}_in_environment",
            )
            for target in ("worker", "pool")
        ),
        migrations.AddField(
            model_name="worker",
            name="account_id",
            field=models.CharField(max_length=64, null=True),
        ),
        migrations.AddField(
            model_name="worker",
            name="limited_until",
            field=models.DateTimeField(null=True),
        ),
    ]
