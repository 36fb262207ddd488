from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models import Index


class Migration(migrations.Migration):
    atomic = False
    dependencies = (("workers", "0004_no_takes_approvals"),)

    operations = (
        AddIndexConcurrently(
            "workersilence",
            Index(fields=["environment", "id"], name="worker_silence_next"),
        ),
    )
