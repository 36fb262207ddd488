from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("notices", "0003_refused_environment")]

    operations = [
        AddIndexConcurrently(
            model_name="notice",
            index=models.Index(
                fields=["address", "send_at"],
                name="notice_mailed_to",
                condition=~Q(status="digested") & ~Q(address=""),
            ),
        ),
    ]
