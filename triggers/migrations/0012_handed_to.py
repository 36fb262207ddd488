"""Adds the column that remembers who got the headers of a run, so that another receiver can be audited."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("triggers", "0011_listed_by_status")]

    operations = [
        migrations.AddField(
            model_name="runtext",
            name="handed_to",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.TextField(), null=True, size=None
            ),
        ),
    ]
