"""Makes the index by which a session that ends finds the admin session that came from it."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0005_undoing_links")]

    operations = [
        AddIndexConcurrently(
            model_name="session",
            index=models.Index(
                condition=models.Q(("came_from__isnull", False)),
                fields=["came_from"],
                name="session_from_another",
            ),
        ),
    ]
