"""Adds the heartbeats of web processes. Schedulers of the release before don't read them."""

from django.db import migrations, models
from django.db.models.functions import Now

from pipedai.ids import new_id


class Migration(migrations.Migration):
    dependencies = [("triggers", "0018_tool_calls_valid")]

    operations = [
        migrations.CreateModel(
            name="WebHeartbeat",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("host", models.CharField(max_length=255)),
                ("pid", models.PositiveIntegerField()),
                ("started_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("beat_at", models.DateTimeField(db_default=Now())),
                ("reachable_since", models.DateTimeField()),
            ],
            options={
                "db_table": "web_heartbeat",
                "indexes": [models.Index(fields=["beat_at"], name="web_heartbeat_old")],
            },
        ),
    ]
