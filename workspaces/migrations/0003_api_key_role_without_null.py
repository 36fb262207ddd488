"""Refuses a `pwk_` key without a role. The CHECK let it pass, since NULL made it neither true nor false."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("workspaces", "0002_at_least_one_owner"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="apikey",
            name="api_key_role_of_kind",
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("kind", "pwk"),
                        ("role__in", ["viewer", "operator", "admin"]),
                        ("role__isnull", False),
                    ),
                    models.Q(("kind", "wrk"), ("role__isnull", True)),
                    _connector="OR",
                ),
                name="api_key_role_of_kind",
            ),
        ),
    ]
