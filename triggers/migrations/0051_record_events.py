from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("triggers", "0050_no_watch_of_runs"),
    ]

    operations = [
        migrations.RemoveField(
            model_name="trigger",
            name="record_events",
        ),
        migrations.AddField(
            model_name="trigger",
            name="record_events",
            field=models.CharField(
                choices=[("never", "Never"), ("failures", "Failures"), ("always", "Always")],
                db_default="failures",
                default="failures",
                max_length=8,
            ),
        ),
        migrations.AddConstraint(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(("record_events__in", ["never", "failures", "always"])),
                name="trigger_record_events",
            ),
        ),
    ]
