from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("triggers", "0007_indexes_of_looks"),)

    operations = (
        ValidateConstraint("run", "run_look"),
        ValidateConstraint("run", "run_look_only"),
        ValidateConstraint("run", "run_nothing_new"),
        ValidateConstraint("triggerrevision", "trigger_revision_carry"),
    )
