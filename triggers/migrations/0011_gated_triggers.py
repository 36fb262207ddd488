from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("triggers", "0010_kept_rules"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="trigger",
            index=models.Index(
                condition=models.Q(("approvals__isnull", False), ("deleted_at__isnull", True)),
                fields=["environment", "id"],
                name="trigger_with_approvals",
            ),
        ),
        AddIndexConcurrently(
            model_name="trigger",
            index=models.Index(
                condition=models.Q(
                    models.Q(
                        ("mcp_headers__isnull", False),
                        ("connection__isnull", False),
                        _connector="OR",
                    ),
                    ("deleted_at__isnull", True),
                ),
                fields=["environment", "id"],
                name="trigger_with_headers",
            ),
        ),
    ]
