"""Makes the audit table: partitioned by month, and append-only also for the application's own connection.

`audit_add_partition(day)` makes the partition of a month, with triggers that refuse UPDATE, DELETE and TRUNCATE on it.
They are statement triggers, since a row trigger does not see TRUNCATE. They are ALWAYS triggers, since others are
skipped under `session_replication_role = replica`. The scheduler calls the function ahead of time. The rows of a month
without a partition go to the default partition, so that no action fails because a partition is missing.
"""

import django.db.models.functions.datetime
from django.db import migrations, models

import pipedai.ids

FORWARD = """
CREATE TABLE audit_entry (
    id uuid NOT NULL,
    environment_id uuid,
    action varchar(32) NOT NULL,
    actor_type varchar(8) NOT NULL CHECK (actor_type IN ('user', 'api_key', 'worker', 'staff', 'system')),
    actor_id uuid,
    target_type varchar(32) NOT NULL,
    target_id uuid,
    metadata jsonb NOT NULL,
    ip inet,
    request_id varchar(128),
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
CREATE INDEX audit_entry_listed ON audit_entry (environment_id, created_at, id);
CREATE INDEX audit_entry_of_action ON audit_entry (environment_id, action, created_at, id);
CREATE INDEX audit_entry_of_target ON audit_entry (environment_id, target_id, created_at, id);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION audit_protect(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()', relation);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_append_only', relation);
END $$;

CREATE FUNCTION audit_add_partition(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    month date := date_trunc('month', day);
    partition text := 'audit_entry_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I PARTITION OF audit_entry FOR VALUES FROM (%L) TO (%L)',
        partition, month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
    PERFORM audit_protect(partition::regclass);
    RETURN true;
END $$;

CREATE TABLE audit_entry_default PARTITION OF audit_entry DEFAULT;
SELECT audit_protect('audit_entry');
SELECT audit_protect('audit_entry_default');
SELECT audit_add_partition(
    ((statement_timestamp() AT TIME ZONE 'UTC')::date + months * interval '1 month')::date)
    FROM generate_series(0, 2) AS months;
"""

BACKWARD = """
DROP TABLE audit_entry;
DROP FUNCTION audit_add_partition(date);
DROP FUNCTION audit_protect(regclass);
DROP FUNCTION audit_is_append_only();
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
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
                ("environment_id", models.UUIDField(null=True)),
                ("action", models.CharField(max_length=32)),
                ("actor_type", models.CharField(max_length=8)),
                ("actor_id", models.UUIDField(null=True)),
                ("target_type", models.CharField(max_length=32)),
                ("target_id", models.UUIDField(null=True)),
                ("metadata", models.JSONField(default=dict)),
                ("ip", models.GenericIPAddressField(null=True)),
                ("request_id", models.CharField(max_length=128, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "audit log",
                "db_table": "audit_entry",
                "managed": False,
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
