"""Makes the tables of workspaces, environments and their keys, and what the database itself checks of them."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import pipedai.ids

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


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("accounts", "0001_initial"),
        ("accounts", "__first__"),
    ]

    operations = [
        migrations.CreateModel(
            name="Workspace",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("ceilings", models.JSONField(db_default=models.Value({}, models.JSONField()))),
            ],
            options={
                "db_table": "workspace",
            },
        ),
        migrations.CreateModel(
            name="Environment",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "workspace",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="environments",
                        to="workspaces.workspace",
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("paused_at", models.DateTimeField(null=True)),
                ("pause_reason", models.CharField(max_length=500, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
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
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "started_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
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
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="data_keys",
                        to="workspaces.environment",
                    ),
                ),
                ("wrapped", models.BinaryField()),
                ("master_key_id", models.CharField(max_length=64)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("retired_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "data_key",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment", "id"), name="data_key_in_environment"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("retired_at__isnull", True)),
                        fields=("environment",),
                        name="data_key_one_in_use",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
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
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("last_used_at", models.DateTimeField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("consumed_at", models.DateTimeField(null=True)),
                ("consumed_by", models.UUIDField(null=True)),
                (
                    "pool_ids",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.UUIDField(), null=True, size=None
                    ),
                ),
                (
                    "parent",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="minted",
                        to="workspaces.apikey",
                    ),
                ),
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
                    models.UniqueConstraint(
                        fields=("environment", "id"), name="api_key_in_environment"
                    ),
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
                ],
            },
        ),
        migrations.CreateModel(
            name="Invitation",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
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
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "mail",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="invitation",
                        to="accounts.accountmail",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
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
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="memberships",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
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
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
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
        migrations.RunSQL(KEEPS_AN_OWNER, NO_OWNER_KEPT),
        migrations.RunSQL(KEEPS_THE_KEY_IN_USE, NO_KEY_KEPT),
    ]
