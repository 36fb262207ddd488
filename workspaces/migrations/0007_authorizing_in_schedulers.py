import django.db.models.expressions
from django.contrib.postgres.operations import AddIndexConcurrently, ValidateConstraint
from django.db import migrations, models


class Migration(migrations.Migration):
    # An index that is built while others write can't be built in a transaction.
    atomic = False

    dependencies = [
        ("workspaces", "0006_authorizing_in_schedulers"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="authorization",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False)),
                fields=["due_at"],
                name="authorization_due_at",
            ),
        ),
        AddIndexConcurrently(
            model_name="authorization",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False)),
                fields=["environment", "host", "due_at"],
                name="authorization_turn",
            ),
        ),
        AddIndexConcurrently(
            model_name="authorization",
            index=models.Index(
                condition=models.Q(("leased_until__isnull", False)),
                fields=["leased_until"],
                name="authorization_leased",
            ),
        ),
        AddIndexConcurrently(
            model_name="connection",
            index=models.Index(
                models.F("environment"),
                django.db.models.expressions.RawSQL(
                    "coalesce(regexp_replace(lower(substring(coalesce(token_endpoint, mcp_url) from '^[^:]*://([^/?#]*)')), ':(80|443)$', ''), '')",
                    (),
                ),
                models.F("refresh_at"),
                condition=models.Q(
                    ("failures", 0), ("headers__isnull", False), ("refresh_at__isnull", False)
                ),
                name="connection_healthy_by_server",
            ),
        ),
        AddIndexConcurrently(
            model_name="connection",
            index=models.Index(
                models.F("environment"),
                django.db.models.expressions.RawSQL(
                    "coalesce(regexp_replace(lower(substring(coalesce(token_endpoint, mcp_url) from '^[^:]*://([^/?#]*)')), ':(80|443)$', ''), '')",
                    (),
                ),
                models.F("refresh_at"),
                condition=models.Q(
                    ("refresh_at__isnull", False),
                    models.Q(("headers__isnull", True), ("failures__gt", 0), _connector="OR"),
                ),
                name="connection_ailing_by_server",
            ),
        ),
        ValidateConstraint(
            model_name="authorization", name="connection_authorization_carried_has_a_key"
        ),
        ValidateConstraint(model_name="authorization", name="connection_authorization_due"),
        migrations.RunSQL(
            "ALTER TABLE connection_authorization "
            "VALIDATE CONSTRAINT connection_authorization_carried_key_in_environment",
            migrations.RunSQL.noop,
        ),
    ]
