from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("triggers", "0015_events_decided_later"),)

    operations = (ValidateConstraint("event", "event_of_source_or_run"),)
