"""Refuses an ended run without `ended_by` or `fault_class`.

The old CHECK accepted such a run, because its condition was NULL there, and a CHECK refuses only what is false.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("triggers", "0005_run_waiting")]

    operations = [
        migrations.RemoveConstraint(
            model_name="run",
            name="run_ended",
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("ended_at__isnull", False),
                        ("ended_by__in", ["worker", "user", "lease", "deadline", "late_result"]),
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
    ]
