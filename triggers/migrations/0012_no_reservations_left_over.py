from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0011_types_of_events")]

    operations = [
        RemoveIndexConcurrently("runreservation", "run_reservation_open"),
        RemoveIndexConcurrently("runreservation", "run_reservation_estimate"),
    ]
