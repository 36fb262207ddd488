"""Makes the index by which the staff's login page finds an account that may use its password."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0002_single_sign_on")]

    operations = [
        AddIndexConcurrently(
            model_name="user",
            index=models.Index(
                condition=models.Q(("password_allowed", True)),
                fields=["id"],
                name="user_password_allowed",
            ),
        ),
    ]
