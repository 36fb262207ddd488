"""Makes the index by which the throttles on logins find an address's earlier logins to an account."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0003_password_allowed_index")]

    operations = [
        AddIndexConcurrently(
            model_name="session",
            index=models.Index(
                fields=["user", "address_digest", "created_at"],
                name="session_known_address",
            ),
        ),
    ]
