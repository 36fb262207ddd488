"""Adds whether a claim reserved the cap of its run's trigger, so that a repeated claim tells the same cap."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("triggers", "0046_run_of_pair_alone")]

    operations = [
        migrations.AddField(
            model_name="runreservation",
            name="is_cap",
            field=models.BooleanField(null=True),
        ),
    ]
