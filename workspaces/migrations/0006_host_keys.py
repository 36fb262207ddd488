"""Lets hosts have keys and keys mint registration tokens. 0009 validates the constraints added here, not valid."""

import django.db.models.deletion
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):
    safe_because = {
        "ban-drop-constraint": "it is made anew in the same transaction, and allows more",
    }
    dependencies = [("workspaces", "0005_names")]

    operations = [
        migrations.RemoveConstraint(
            model_name="apikey",
            name="api_key_role_of_kind",
        ),
        migrations.AddField(
            model_name="apikey",
            name="parent",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="minted",
                to="workspaces.apikey",
            ),
        ),
        migrations.AlterField(
            model_name="apikey",
            name="kind",
            field=models.CharField(
                choices=[("pwk", "Pwk"), ("wrk", "Wrk"), ("hos", "Hos")], max_length=3
            ),
        ),
        AddConstraintNotValid(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind", "wrk"), ("parent__isnull", True), _connector="OR"),
                name="api_key_only_wrk_is_minted",
            ),
        ),
        AddConstraintNotValid(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("kind", "pwk"),
                        ("role__in", ["viewer", "operator", "admin"]),
                        ("role__isnull", False),
                    ),
                    models.Q(("kind__in", ("wrk", "hos")), ("role__isnull", True)),
                    _connector="OR",
                ),
                name="api_key_role_of_kind",
            ),
        ),
    ]
