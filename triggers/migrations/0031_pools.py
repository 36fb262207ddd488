"""Adds what lets a run be done by any machine that can: pools, start deadlines, places, resuming, limits (SPEC §16).

The foreign keys contain the environment; see 0002. 0032 validates the constraints, and 0033 adds the indexes.
"""

import django.db.models.deletion
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

# (table, column, referenced table)
_KEYS = (
    ("trigger", "pool", "pool"),
    ("run", "pool", "pool"),
    ("run", "avoided_worker", "worker"),
)


def _key(table: str, column: str, target: str) -> migrations.RunSQL:
    name = f"{table}_{column}_in_environment"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (environment_id, {column}_id)"
        f" REFERENCES {target} (environment_id, id) NOT VALID",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    safe_because = {
        "ban-drop-constraint": "it is made anew in the same transaction, and allows more",
        "changing-column-type": "a longer varchar needs no rewrite, and the previous release writes shorter texts",
    }
    dependencies = [
        ("triggers", "0030_bounded_lists_alone"),
        ("workers", "0008_workers_of_account"),
        ("workspaces", "0012_pause_valid"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="run",
            name="run_times_of_state",
        ),
        migrations.RemoveConstraint(
            model_name="run",
            name="run_ended",
        ),
        migrations.RemoveConstraint(
            model_name="tick",
            name="tick_decision",
        ),
        migrations.RemoveConstraint(
            model_name="tick",
            name="tick_missed_is_counted",
        ),
        migrations.AddField(
            model_name="run",
            name="at_limit",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="run",
            name="avoided_worker",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="workers.worker",
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="had_effects",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="run",
            name="limit_retries",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="run",
            name="place",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="run",
            name="pool",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="workers.pool",
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="pool_from",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="run",
            name="resume_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="run",
            name="start_deadline_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="trigger",
            name="max_concurrent_runs",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="trigger",
            name="pool",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="workers.pool",
            ),
        ),
        migrations.AddField(
            model_name="trigger",
            name="prefer_seconds",
            field=models.PositiveSmallIntegerField(db_default=60, default=60),
        ),
        migrations.AddField(
            model_name="trigger",
            name="retry_mode",
            field=models.CharField(
                choices=[("restart", "Restart"), ("resume", "Resume")],
                db_default="restart",
                default="restart",
                max_length=7,
            ),
        ),
        migrations.AddField(
            model_name="trigger",
            name="start_deadline_seconds",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AlterField(
            model_name="run",
            name="ended_by",
            field=models.CharField(
                choices=[
                    ("worker", "Worker"),
                    ("user", "User"),
                    ("lease", "Lease"),
                    ("deadline", "Deadline"),
                    ("late_result", "Late Result"),
                    ("start_deadline", "Start Deadline"),
                    ("had_effects", "Had Effects"),
                ],
                max_length=16,
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="tick",
            name="decision",
            field=models.CharField(
                choices=[
                    ("fired", "Fired"),
                    ("skipped_overlap", "Skipped Overlap"),
                    ("skipped_missed", "Skipped Missed"),
                    ("skipped_no_worker", "Skipped No Worker"),
                    ("skipped_paused", "Skipped Paused"),
                ],
                max_length=17,
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("ended_at__isnull", False),
                        (
                            "ended_by__in",
                            [
                                "worker",
                                "user",
                                "lease",
                                "deadline",
                                "late_result",
                                "start_deadline",
                                "had_effects",
                            ],
                        ),
                        ("ended_by__isnull", False),
                        ("fault_class__isnull", False),
                        ("status__in", ("succeeded", "failed", "timed_out", "canceled")),
                        models.Q(
                            models.Q(
                                ("fault_class", "none"), ("status__in", ("succeeded", "canceled"))
                            ),
                            models.Q(
                                ("fault_class__in", ("infra", "client")),
                                ("status__in", ("failed", "timed_out")),
                            ),
                            _connector="OR",
                        ),
                    ),
                    models.Q(
                        ("ended_at__isnull", True),
                        ("ended_by__isnull", True),
                        ("fault_class__isnull", True),
                        models.Q(
                            ("status__in", ("succeeded", "failed", "timed_out", "canceled")),
                            _negated=True,
                        ),
                    ),
                    _connector="OR",
                ),
                name="run_ended",
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("claimed_at__isnull", True),
                        ("started_at__isnull", True),
                        ("status", "queued"),
                    ),
                    models.Q(
                        ("claimed_at__isnull", False),
                        ("started_at__isnull", True),
                        ("status", "claimed"),
                    ),
                    models.Q(
                        ("claimed_at__isnull", False),
                        ("started_at__isnull", False),
                        ("status", "running"),
                    ),
                    models.Q(
                        ("claimed_at__isnull", False),
                        ("status__in", ("succeeded", "failed", "timed_out")),
                    ),
                    models.Q(
                        ("claimed_at__isnull", True),
                        ("ended_by__in", ("start_deadline", "had_effects")),
                        ("started_at__isnull", True),
                        ("status", "failed"),
                    ),
                    models.Q(
                        ("status", "canceled"),
                        models.Q(
                            ("claimed_at__isnull", False),
                            models.Q(("claimed_at__isnull", True), ("started_at__isnull", True)),
                            _connector="OR",
                        ),
                    ),
                    _connector="OR",
                ),
                name="run_times_of_state",
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("place__isnull", True),
                    models.Q(("place__gte", 1), ("slot__isnull", False)),
                    _connector="OR",
                ),
                name="run_in_place_is_held",
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("avoided_worker__isnull", True),
                        ("pool__isnull", True),
                        ("pool_from__isnull", True),
                    ),
                    models.Q(("pool__isnull", False), ("pool_from__isnull", False)),
                    _connector="OR",
                ),
                name="run_pool_from",
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("had_effects", False), ("resume_until__isnull", True)),
                    models.Q(
                        ("resume_until__isnull", False),
                        ("retry_of__isnull", False),
                        ("worker__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="run_resuming_is_a_retry",
            ),
        ),
        AddConstraintNotValid(
            model_name="tick",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("decision__in", ("skipped_missed", "skipped_no_worker", "skipped_paused")),
                        ("last_tick_at__gte", models.F("tick_at")),
                        ("missed_count__gte", 1),
                    ),
                    models.Q(
                        ("last_tick_at", models.F("tick_at")),
                        ("missed_count", 0),
                        models.Q(
                            ("decision__in", ("skipped_missed", "skipped_paused")), _negated=True
                        ),
                    ),
                    _connector="OR",
                ),
                name="tick_missed_is_counted",
            ),
        ),
        AddConstraintNotValid(
            model_name="tick",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "decision__in",
                        [
                            "fired",
                            "skipped_overlap",
                            "skipped_missed",
                            "skipped_no_worker",
                            "skipped_paused",
                        ],
                    )
                ),
                name="tick_decision",
            ),
        ),
        AddConstraintNotValid(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(("prefer_seconds__lte", 600)), name="trigger_prefer_seconds"
            ),
        ),
        AddConstraintNotValid(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("start_deadline_seconds__isnull", True),
                    models.Q(
                        ("start_deadline_seconds__gte", 60), ("start_deadline_seconds__lte", 604800)
                    ),
                    _connector="OR",
                ),
                name="trigger_start_deadline_seconds",
            ),
        ),
        AddConstraintNotValid(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("max_concurrent_runs__isnull", True),
                    models.Q(("max_concurrent_runs__gte", 1), ("max_concurrent_runs__lte", 100)),
                    _connector="OR",
                ),
                name="trigger_max_concurrent_runs",
            ),
        ),
        AddConstraintNotValid(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(("retry_mode__in", ["restart", "resume"])),
                name="trigger_retry_mode",
            ),
        ),
        *(_key(*each) for each in _KEYS),
    ]
