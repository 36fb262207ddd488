from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import CheckConstraint, Q

import triggers.models.run


class Migration(migrations.Migration):
    dependencies = (("triggers", "0005_retry_after_effects_is_off"),)

    operations = (
        migrations.AddField("run", "look_digest", models.CharField(max_length=64, null=True)),
        migrations.AddField("run", "looked_at", models.DateTimeField(null=True)),
        migrations.AddField(
            "run", "look_only", models.BooleanField(db_default=False, default=False)
        ),
        migrations.AddField("run", "looks", models.BooleanField(db_default=False, default=False)),
        migrations.AddField(
            "run", "nothing_new", models.BooleanField(db_default=False, default=False)
        ),
        migrations.AddField("runtext", "previous_id", models.UUIDField(null=True)),
        migrations.AddField(
            "triggerrevision", "before", triggers.models.run.JSONAsGivenField(null=True)
        ),
        migrations.AddField(
            "triggerrevision",
            "carry",
            models.CharField(
                choices=[("none", "None"), ("output", "Output")],
                db_default="none",
                default="none",
                max_length=6,
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=CheckConstraint(
                condition=Q(("look_digest__isnull", True), ("looked_at__isnull", True))
                | Q(("look_digest__isnull", False), ("looked_at__isnull", False), ("looks", True)),
                name="run_look",
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=CheckConstraint(
                condition=Q(
                    ("nothing_new", False),
                    Q(
                        ("cost_usd", 0),
                        ("looks", True),
                        ("spells", 0),
                        ("started_at__isnull", False),
                        ("status", "succeeded"),
                    ),
                    _connector="OR",
                ),
                name="run_nothing_new",
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=CheckConstraint(
                condition=Q(("look_only", False)) | Q(("looks", True), ("nothing_new", False)),
                name="run_look_only",
            ),
        ),
        AddConstraintNotValid(
            model_name="triggerrevision",
            constraint=CheckConstraint(
                condition=Q(("carry__in", ["none", "output"])), name="trigger_revision_carry"
            ),
        ),
    )
