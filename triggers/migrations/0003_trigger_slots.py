from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("triggers", "0002_tenant_keys")]

    operations = [
        migrations.RemoveConstraint(
            model_name="run",
            name="run_in_place_is_held",
        ),
        migrations.RemoveConstraint(
            model_name="run",
            name="run_one_in_place",
        ),
        migrations.RemoveIndex(
            model_name="runreservation",
            name="run_reservation_open",
        ),
        migrations.RemoveIndex(
            model_name="runreservation",
            name="run_reservation_estimate",
        ),
        migrations.RenameField(
            model_name="run",
            old_name="place",
            new_name="trigger_slot",
        ),
        migrations.AlterField(
            model_name="runreservation",
            name="is_cap",
            field=models.BooleanField(),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(
                condition=models.Q(("trigger_slot__isnull", False)),
                fields=("trigger", "trigger_slot", "environment"),
                name="run_one_in_trigger_slot",
            ),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("trigger_slot__isnull", True),
                    models.Q(("slot__isnull", False), ("trigger_slot__gte", 1)),
                    _connector="OR",
                ),
                name="run_in_trigger_slot_is_held",
            ),
        ),
    ]
