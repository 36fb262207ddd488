"""Adds the table of rotations that are under way, and keeps an environment's data key in use from being deleted.

Foreign keys keep the data keys that values use; this keeps the one in use even if no value uses it yet.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import pipedai.ids

FORWARD = """
CREATE FUNCTION data_key_in_use_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'data key % is in use and can not be deleted', OLD.id
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'data_key_in_use_stays';
END $$;
CREATE TRIGGER data_key_in_use_stays BEFORE DELETE ON data_key
    FOR EACH ROW WHEN (OLD.retired_at IS NULL) EXECUTE FUNCTION data_key_in_use_stays();
"""

BACKWARD = """
DROP TRIGGER data_key_in_use_stays ON data_key;
DROP FUNCTION data_key_in_use_stays();
"""


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0003_api_key_role_without_null")]

    operations = [
        migrations.CreateModel(
            name="DataKeyRotation",
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
                    "started_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
            ],
            options={
                "db_table": "data_key_rotation",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment",),
                        name="data_key_rotation_one_under_way",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
