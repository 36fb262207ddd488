"""Makes the tables of workspaces, environments, keys and connections, and what the database itself checks of them."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.table_rules import tenant_key, tenant_parent

# An environment keeps an owner, as the services see to it. The check is deferred, so that one transaction can
# hand ownership over. It locks the environment's row, so that two transactions that each remove one of two owners can't
# both pass.
KEEPS_AN_OWNER = """
CREATE FUNCTION membership_keeps_an_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM environment WHERE id = OLD.environment_id AND deleted_at IS NULL FOR NO KEY UPDATE;
    IF FOUND AND NOT EXISTS (
        SELECT 1 FROM membership WHERE environment_id = OLD.environment_id AND role = 'owner'
    ) THEN
        RAISE EXCEPTION 'environment % must keep at least one owner', OLD.environment_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'membership_keeps_an_owner';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER membership_keeps_an_owner AFTER UPDATE OR DELETE ON membership
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.role = 'owner')
    EXECUTE FUNCTION membership_keeps_an_owner();
"""

NO_OWNER_KEPT = """
DROP TRIGGER membership_keeps_an_owner ON membership;
DROP FUNCTION membership_keeps_an_owner();
"""

# Foreign keys keep the data keys that values use; this keeps the one in use even if no value uses it yet.
KEEPS_THE_KEY_IN_USE = """
CREATE FUNCTION data_key_in_use_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'data key % is in use and can not be deleted', OLD.id
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'data_key_in_use_stays';
END $$;
CREATE TRIGGER data_key_in_use_stays BEFORE DELETE ON data_key
    FOR EACH ROW WHEN (OLD.retired_at IS NULL) EXECUTE FUNCTION data_key_in_use_stays();
"""

NO_KEY_KEPT = """
DROP TRIGGER data_key_in_use_stays ON data_key;
DROP FUNCTION data_key_in_use_stays();
"""

# Columns that many tables have.
ID = ("id", models.UUIDField(default=new_id, editable=False, primary_key=True, serialize=False))
ENVIRONMENT = (
    "environment",
    models.ForeignKey(
        db_index=False, on_delete=models.PROTECT, related_name="+", to="workspaces.environment"
    ),
)
CREATED_AT = ("created_at", models.DateTimeField(db_default=Now(), editable=False))


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("accounts", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Workspace",
            fields=[
                ID,
                ("name", models.CharField(max_length=200)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=models.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                CREATED_AT,
                ("ceilings", models.JSONField(db_default=models.Value({}, models.JSONField()))),
            ],
            options={
                "db_table": "workspace",
            },
        ),
        migrations.CreateModel(
            name="Environment",
            fields=[
                ID,
                (
                    "workspace",
                    models.ForeignKey(
                        on_delete=models.PROTECT,
                        related_name="environments",
                        to="workspaces.workspace",
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("paused_at", models.DateTimeField(null=True)),
                ("pause_reason", models.CharField(max_length=500, null=True)),
                CREATED_AT,
                ("deleted_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "environment",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=("workspace", "name"),
                        name="environment_name_free_in_workspace",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("pause_reason__isnull", True),
                            ("paused_at__isnull", False),
                            _connector="OR",
                        ),
                        name="environment_pause_has_a_time",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="DataKeyRotation",
            fields=[
                ID,
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
                ("started_at", models.DateTimeField(db_default=Now(), editable=False)),
            ],
            options={
                "db_table": "data_key_rotation",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment",),
                        name="data_key_rotation_one_under_way",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="DataKey",
            fields=[
                ID,
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="data_keys",
                        to="workspaces.environment",
                    ),
                ),
                ("wrapped", models.BinaryField()),
                ("master_key_id", models.CharField(max_length=64)),
                CREATED_AT,
                ("retired_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "data_key",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("retired_at__isnull", True)),
                        fields=("environment",),
                        name="data_key_one_in_use",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                ID,
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="api_keys",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("pwk", "Pwk"), ("wrk", "Wrk"), ("hos", "Hos")], max_length=3
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("role", models.CharField(max_length=8, null=True)),
                ("token_digest", models.BinaryField(max_length=32, unique=True)),
                ("last_four", models.CharField(max_length=4)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=models.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                CREATED_AT,
                ("last_used_at", models.DateTimeField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("consumed_at", models.DateTimeField(null=True)),
                ("consumed_by", models.UUIDField(null=True)),
                ("pool_ids", ArrayField(base_field=models.UUIDField(), null=True, size=None)),
                (
                    "parent",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="minted",
                        to="workspaces.apikey",
                    ),
                ),
                ("is_login", models.BooleanField(db_default=False, default=False)),
            ],
            options={
                "verbose_name": "API key",
                "db_table": "api_key",
                "indexes": [
                    models.Index(fields=["environment", "created_at", "id"], name="api_key_listed"),
                    models.Index(
                        condition=models.Q(("parent__isnull", False)),
                        fields=["parent"],
                        name="api_key_minted",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("kind", "wrk"), ("parent__isnull", True), _connector="OR"
                        ),
                        name="api_key_only_wrk_is_minted",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("kind", "pwk"),
                                ("role__in", ["viewer", "operator", "admin"]),
                                ("role__isnull", False),
                            ),
                            models.Q(("kind__in", ("wrk", "hos")), ("role__isnull", True)),
                            _connector="OR",
                        ),
                        name="api_key_role_of_kind",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("kind", "wrk"),
                            models.Q(("consumed_at__isnull", True), ("consumed_by__isnull", True)),
                            _connector="OR",
                        ),
                        name="api_key_only_wrk_is_consumed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("kind", "wrk"), ("pool_ids__isnull", True), _connector="OR"
                        ),
                        name="api_key_only_wrk_joins_pools",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("consumed_at__isnull", True), ("consumed_by__isnull", True)),
                            models.Q(
                                ("consumed_at__isnull", False), ("consumed_by__isnull", False)
                            ),
                            _connector="OR",
                        ),
                        name="api_key_consumed_by_somebody",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("is_login", False),
                            models.Q(("expires_at__isnull", False), ("kind", "pwk")),
                            _connector="OR",
                        ),
                        name="api_key_login_expires",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Invitation",
            fields=[
                ID,
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="invitations",
                        to="workspaces.environment",
                    ),
                ),
                ("email", models.CharField(max_length=254)),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("viewer", "Viewer"),
                            ("operator", "Operator"),
                            ("admin", "Admin"),
                            ("owner", "Owner"),
                        ],
                        max_length=8,
                    ),
                ),
                (
                    "invited_by",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "mail",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        related_name="invitation",
                        to="accounts.accountmail",
                    ),
                ),
                CREATED_AT,
                ("expires_at", models.DateTimeField()),
                ("accepted_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "invitation",
                "indexes": [
                    models.Index(
                        condition=models.Q(
                            ("accepted_at__isnull", True), ("revoked_at__isnull", True)
                        ),
                        fields=["environment", "created_at", "id"],
                        name="invitation_open_listed",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(
                            ("accepted_at__isnull", True), ("revoked_at__isnull", True)
                        ),
                        fields=("environment", "email"),
                        name="invitation_one_open",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["viewer", "operator", "admin", "owner"])),
                        name="invitation_role",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("accepted_at__isnull", True),
                            ("revoked_at__isnull", True),
                            _connector="OR",
                        ),
                        name="invitation_accepted_or_revoked",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                ID,
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="memberships",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("viewer", "Viewer"),
                            ("operator", "Operator"),
                            ("admin", "Admin"),
                            ("owner", "Owner"),
                        ],
                        max_length=8,
                    ),
                ),
                CREATED_AT,
            ],
            options={
                "db_table": "membership",
                "indexes": [
                    models.Index(
                        fields=["user"], include=("environment", "role"), name="membership_of_user"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("environment", "user"), name="membership_once"),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["viewer", "operator", "admin", "owner"])),
                        name="membership_role",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Connection",
            fields=[
                ID,
                ("name", models.CharField(max_length=200)),
                ("mcp_url", models.CharField(max_length=2048)),
                (
                    "grant_type",
                    models.CharField(
                        choices=[
                            ("authorization_code", "Authorization Code"),
                            ("client_credentials", "Client Credentials"),
                            ("headers", "Headers"),
                        ],
                        max_length=18,
                    ),
                ),
                ("headers", models.BinaryField(null=True)),
                CREATED_AT,
                ("updated_at", models.DateTimeField(db_default=Now())),
                ENVIRONMENT,
                (
                    "headers_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("access_expires_at", models.DateTimeField(null=True)),
                ("auth_method", models.CharField(max_length=19, null=True)),
                ("client_given", models.BooleanField(db_default=False, default=False)),
                ("client_id", models.CharField(max_length=2048, null=True)),
                ("connected_at", models.DateTimeField(null=True)),
                (
                    "connected_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("error", models.CharField(max_length=300, null=True)),
                ("failures", models.PositiveIntegerField(db_default=0, default=0)),
                ("fresh_until", models.DateTimeField(null=True)),
                ("grant_secrets", models.BinaryField(null=True)),
                (
                    "grant_secrets_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("is_second_try", models.BooleanField(db_default=False, default=False)),
                ("issuer", models.CharField(max_length=2048, null=True)),
                ("last_refresh_at", models.DateTimeField(null=True)),
                ("lease_id", models.UUIDField(null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("refresh_at", models.DateTimeField(null=True)),
                ("resource", models.CharField(max_length=2048, null=True)),
                ("revocation_endpoint", models.CharField(max_length=2048, null=True)),
                (
                    "scopes",
                    ArrayField(
                        base_field=models.CharField(max_length=200),
                        db_default=[],
                        default=list,
                        size=None,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("unauthorized", "Unauthorized"),
                            ("connected", "Connected"),
                            ("failing", "Failing"),
                            ("needs_login", "Needs Login"),
                        ],
                        db_default="connected",
                        default="connected",
                        max_length=12,
                    ),
                ),
                ("token_endpoint", models.CharField(max_length=2048, null=True)),
                ("key", models.CharField(max_length=64, null=True)),
                ("managed_by", models.CharField(max_length=200, null=True)),
                ("next_issuer", models.CharField(max_length=2048, null=True)),
                ("secret_issuer", models.CharField(max_length=2048, null=True)),
            ],
            options={
                "db_table": "connection",
                "indexes": [
                    models.Index(
                        fields=["environment", "created_at", "id"], name="connection_listed"
                    ),
                    models.Index(
                        condition=models.Q(("refresh_at__isnull", False)),
                        fields=["refresh_at"],
                        name="connection_due",
                    ),
                    models.Index(
                        condition=models.Q(("status__in", ("failing", "needs_login"))),
                        fields=["status", "environment"],
                        name="connection_troubled",
                    ),
                    models.Index(
                        models.F("environment"),
                        RawSQL(
                            "coalesce(regexp_replace(lower(substring(coalesce(token_endpoint, mcp_url) from '^[^:]*://([^/?#]*)')), ':(80|443)$', ''), '')",
                            (),
                        ),
                        models.F("refresh_at"),
                        condition=models.Q(
                            ("failures", 0),
                            ("headers__isnull", False),
                            ("refresh_at__isnull", False),
                        ),
                        name="connection_healthy_by_server",
                    ),
                    models.Index(
                        models.F("environment"),
                        RawSQL(
                            "coalesce(regexp_replace(lower(substring(coalesce(token_endpoint, mcp_url) from '^[^:]*://([^/?#]*)')), ':(80|443)$', ''), '')",
                            (),
                        ),
                        models.F("refresh_at"),
                        condition=models.Q(
                            ("refresh_at__isnull", False),
                            models.Q(
                                ("headers__isnull", True), ("failures__gt", 0), _connector="OR"
                            ),
                        ),
                        name="connection_ailing_by_server",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment", "id", "mcp_url"), name="connection_in_environment"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("grant_secrets__isnull", True), ("grant_type", "headers")),
                            ("grant_type", "authorization_code"),
                            models.Q(
                                ("client_given", True),
                                ("grant_secrets__isnull", False),
                                ("grant_type", "client_credentials"),
                                ("client_id__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="connection_grant",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("headers__isnull", False), ("status", "connected")),
                            models.Q(
                                models.Q(("grant_type", "headers"), _negated=True),
                                models.Q(
                                    models.Q(("headers__isnull", True), ("status", "unauthorized")),
                                    models.Q(("error__isnull", False), ("status", "failing")),
                                    models.Q(
                                        ("error__isnull", False),
                                        ("headers__isnull", True),
                                        ("status", "needs_login"),
                                    ),
                                    _connector="OR",
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="connection_status",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("access_expires_at__isnull", True),
                                ("fresh_until__isnull", True),
                                models.Q(
                                    ("headers__isnull", True),
                                    ("grant_type", "headers"),
                                    _connector="OR",
                                ),
                            ),
                            models.Q(
                                ("access_expires_at__isnull", False),
                                ("fresh_until__isnull", False),
                                ("headers__isnull", False),
                                models.Q(("grant_type", "headers"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="connection_token_has_times",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("refresh_at__isnull", False),
                                models.Q(("grant_type", "headers"), _negated=True),
                                models.Q(
                                    ("status__in", ("connected", "failing")),
                                    models.Q(
                                        ("grant_type", "client_credentials"),
                                        ("status", "unauthorized"),
                                    ),
                                    _connector="OR",
                                ),
                            ),
                            models.Q(
                                ("refresh_at__isnull", True),
                                models.Q(
                                    ("grant_type", "headers"),
                                    ("status", "needs_login"),
                                    models.Q(
                                        ("grant_type", "authorization_code"),
                                        ("status", "unauthorized"),
                                    ),
                                    _connector="OR",
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="connection_refreshed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("is_second_try", False),
                                ("lease_id__isnull", True),
                                ("leased_until__isnull", True),
                            ),
                            models.Q(
                                ("lease_id__isnull", False),
                                ("leased_until__isnull", False),
                                ("refresh_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="connection_lease",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("headers__isnull", True), ("headers_key__isnull", True)),
                            models.Q(("headers__isnull", False), ("headers_key__isnull", False)),
                            _connector="OR",
                        ),
                        name="connection_headers_has_a_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("grant_secrets__isnull", True), ("grant_secrets_key__isnull", True)
                            ),
                            models.Q(
                                ("grant_secrets__isnull", False),
                                ("grant_secrets_key__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="connection_grant_secrets_has_a_key",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False)),
                        fields=("environment", "key"),
                        name="connection_has_own_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Revocation",
            fields=[
                ID,
                ("host", models.CharField(max_length=255)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("delivered", "Delivered"),
                            ("dead", "Dead"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ("next_attempt_at", models.DateTimeField(db_default=Now(), null=True)),
                ("attempt_count", models.PositiveSmallIntegerField(db_default=0, default=0)),
                CREATED_AT,
                ("delivered_at", models.DateTimeField(null=True)),
                ("connection_id", models.UUIDField()),
                (
                    "purpose",
                    models.CharField(
                        choices=[("token", "Token"), ("client", "Client")], max_length=6
                    ),
                ),
                ("request", models.BinaryField(null=True)),
                ENVIRONMENT,
                (
                    "request_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
            ],
            options={
                "db_table": "connection_revocation",
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["next_attempt_at", "host"],
                        name="revocation_due_by_host",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["environment", "host", "next_attempt_at"],
                        name="revocation_pending_by_host",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending"), _negated=True),
                        fields=["created_at"],
                        name="connection_revocation_old",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("next_attempt_at__isnull", False), ("status", "pending")),
                            models.Q(
                                ("next_attempt_at__isnull", True),
                                ("status__in", ("delivered", "dead")),
                            ),
                            _connector="OR",
                        ),
                        name="revocation_pending_is_due",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("delivered_at__isnull", False), ("status", "delivered")),
                            models.Q(
                                ("delivered_at__isnull", True),
                                models.Q(("status", "delivered"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="revocation_delivered_at",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("request__isnull", True), ("request_key__isnull", True)),
                            models.Q(("request__isnull", False), ("request_key__isnull", False)),
                            _connector="OR",
                        ),
                        name="connection_revocation_request_has_a_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("request__isnull", False), ("status", "pending")),
                            models.Q(
                                models.Q(("status", "pending"), _negated=True),
                                ("request__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="connection_revocation_is_forgotten",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Authorization",
            fields=[
                ("client_id", models.CharField(max_length=2048, null=True)),
                ("auth_method", models.CharField(max_length=19, null=True)),
                ("resource", models.CharField(max_length=2048, null=True)),
                ("issuer", models.CharField(max_length=2048, null=True)),
                ("token_endpoint", models.CharField(max_length=2048, null=True)),
                ("revocation_endpoint", models.CharField(max_length=2048, null=True)),
                ID,
                ("state_digest", models.BinaryField(max_length=32, unique=True)),
                ("session_id", models.UUIDField()),
                ("redirect_uri", models.CharField(max_length=2048)),
                ("expires_at", models.DateTimeField()),
                ("secrets", models.BinaryField()),
                ("sends_issuer", models.BooleanField()),
                (
                    "connection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.CASCADE,
                        related_name="authorizations",
                        to="workspaces.connection",
                    ),
                ),
                ENVIRONMENT,
                (
                    "secrets_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("address", models.CharField(max_length=45, null=True)),
                ("carried", models.BinaryField(null=True)),
                (
                    "carried_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("due_at", models.DateTimeField(null=True)),
                ("error", models.CharField(max_length=400, null=True)),
                ("error_code", models.CharField(max_length=40, null=True)),
                ("host", models.CharField(max_length=2048, null=True)),
                ("lease_id", models.UUIDField(null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("request_id", models.CharField(max_length=128, null=True)),
                (
                    "stage",
                    models.CharField(
                        choices=[
                            ("asked", "Asked"),
                            ("ready", "Ready"),
                            ("returned", "Returned"),
                            ("done", "Done"),
                        ],
                        db_default="ready",
                        default="asked",
                        max_length=8,
                    ),
                ),
                ("tries", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("user_id", models.UUIDField(null=True)),
            ],
            options={
                "db_table": "connection_authorization",
                "indexes": [
                    models.Index(fields=["expires_at"], name="connection_authorization_late"),
                    models.Index(
                        condition=models.Q(("due_at__isnull", False)),
                        fields=["due_at"],
                        name="authorization_due_at",
                    ),
                    models.Index(
                        condition=models.Q(("due_at__isnull", False)),
                        fields=["environment", "host", "due_at"],
                        name="authorization_turn",
                    ),
                    models.Index(
                        condition=models.Q(("leased_until__isnull", False)),
                        fields=["leased_until"],
                        name="authorization_leased",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment", "connection", "session_id"),
                        name="connection_authorization_once_a_session",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("carried__isnull", True), ("carried_key__isnull", True)),
                            models.Q(("carried__isnull", False), ("carried_key__isnull", False)),
                            _connector="OR",
                        ),
                        name="connection_authorization_carried_has_a_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("due_at__isnull", False),
                                ("error__isnull", True),
                                ("host__isnull", False),
                                ("stage__in", ("asked", "returned")),
                                ("user_id__isnull", False),
                            ),
                            models.Q(
                                ("due_at__isnull", True),
                                ("lease_id__isnull", True),
                                ("leased_until__isnull", True),
                                models.Q(
                                    ("stage__in", ("ready", "done")),
                                    models.Q(
                                        ("error__isnull", False), ("error_code__isnull", False)
                                    ),
                                    _connector="OR",
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="connection_authorization_due",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RevocationAttempt",
            fields=[
                ("n", models.PositiveSmallIntegerField()),
                ("at", models.DateTimeField()),
                ("status_code", models.PositiveSmallIntegerField(null=True)),
                ("duration_ms", models.PositiveIntegerField()),
                ("error", models.CharField(max_length=100, null=True)),
                ("response_body", models.CharField(max_length=1024, null=True)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "revocation_id",
                        "n",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ENVIRONMENT,
                (
                    "revocation",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="attempts",
                        to="workspaces.revocation",
                    ),
                ),
            ],
            options={
                "db_table": "connection_revocation_attempt",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status_code__isnull", False),
                            ("error__isnull", False),
                            _connector="OR",
                        ),
                        name="connection_revocation_attempt_has_an_end",
                    )
                ],
            },
        ),
        tenant_parent("datakey", "data_key"),
        tenant_parent("apikey", "api_key"),
        tenant_parent("revocation", "connection_revocation"),
        migrations.AddConstraint(
            "connection",
            models.UniqueConstraint(fields=("environment", "id"), name="connection_of_environment"),
        ),
        migrations.RunSQL(KEEPS_AN_OWNER, NO_OWNER_KEPT),
        migrations.RunSQL(KEEPS_THE_KEY_IN_USE, NO_KEY_KEPT),
        tenant_key("api_key", "parent_id", "api_key"),
        tenant_key("connection", "headers_key_id", "data_key"),
        tenant_key("connection", "grant_secrets_key_id", "data_key"),
        tenant_key("connection_authorization", "connection_id", "connection", "ON DELETE CASCADE"),
        tenant_key("connection_authorization", "secrets_key_id", "data_key"),
        tenant_key("connection_revocation", "request_key_id", "data_key"),
        tenant_key(
            "connection_revocation_attempt",
            "revocation_id",
            "connection_revocation",
            "ON DELETE CASCADE",
        ),
        tenant_key("connection_authorization", "carried_key_id", "data_key"),
    ]
