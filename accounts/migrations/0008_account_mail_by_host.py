from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0006_proof_and_mails")]

    operations = [
        AddIndexConcurrently(
            model_name="accountmail",
            index=models.Index(
                fields=["host", "next_attempt_at"],
                name="accountmail_pending_by_host",
                condition=models.Q(status="pending"),
            ),
        ),
    ]
