"""Makes the tables of triggers, runs, events and approvals, the keys between tenants' tables, and how PostgreSQL keeps them."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models
from django.db.models.functions import Greatest, Now

from pipedai.ids import new_id
from pipedai.table_rules import tenant_key, tenant_parent
from triggers.models.fields import JSONAsGivenField

# The table of run events is partitioned by day, so that old days can be dropped as whole tables.
# `run_event_add_partition(day)` makes the partition of a day. The scheduler calls it ahead of time. The rows of a day
# without a partition go to the default partition, so that no event is refused because a partition is missing.
EVENTS = """
CREATE TABLE run_event_batch (
    environment_id uuid NOT NULL,
    run_id uuid NOT NULL,
    first_seq integer NOT NULL CHECK (first_seq > 0),
    last_seq integer NOT NULL,
    stored_at timestamptz NOT NULL,
    bytes integer NOT NULL,
    events text[] NOT NULL,
    CHECK (last_seq - first_seq + 1 = cardinality(events) AND cardinality(events) > 0),
    PRIMARY KEY (run_id, last_seq, stored_at)
) PARTITION BY RANGE (stored_at);

CREATE FUNCTION run_event_add_partition(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'run_event_batch_' || to_char(day, 'YYYY_MM_DD');
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I PARTITION OF run_event_batch FOR VALUES FROM (%L) TO (%L)',
        partition, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    RETURN true;
END $$;

CREATE TABLE run_event_batch_default PARTITION OF run_event_batch DEFAULT;
SELECT run_event_add_partition((statement_timestamp() AT TIME ZONE 'UTC')::date + days)
    FROM generate_series(0, 3) AS days;
"""

NO_EVENTS = """
DROP TABLE run_event_batch;
DROP FUNCTION run_event_add_partition(date);
"""

# By these the planner knows that all runs of a trigger belong to one environment, and most of them to one worker, and
# which ends, sources and retries of runs go together. Without them it expects few rows from such conditions together,
# and reads and sorts all of the many rows that it then gets.
STATISTICS = """
CREATE STATISTICS run_belongs (dependencies) ON environment_id, trigger_id, worker_id FROM run;
CREATE STATISTICS run_kinds (mcv) ON status, fault_class, source, retried FROM run;
"""

# The free space lets PostgreSQL put a row's new version beside the old one, without new entries in the indexes.
FREE_SPACE = """
ALTER TABLE run SET (fillfactor = 80);
ALTER TABLE run_event_log SET (fillfactor = 50);
ALTER TABLE run_event_day SET (fillfactor = 10);
"""

# Autovacuum cleans the tables that change most after a hundredth of their rows changed, not after a fifth. A
# run changes six times in its life: with PostgreSQL's own settings half a million runs held 62,000 dead rows, and the
# overview took five times as long.
VACUUM = "".join(
    f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01, "
    "autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);"
    for table in ("run", "run_text", "run_result", "tick", "delivery")
)

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
        ("workers", "0001_initial"),
        ("workspaces", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="RunEventBatch",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id",
                        "last_seq",
                        "stored_at",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("environment_id", models.UUIDField()),
                ("run_id", models.UUIDField()),
                ("first_seq", models.IntegerField()),
                ("last_seq", models.IntegerField()),
                ("stored_at", models.DateTimeField()),
                ("bytes", models.IntegerField()),
                ("events", ArrayField(base_field=models.TextField(), size=None)),
            ],
            options={
                "db_table": "run_event_batch",
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="EnvironmentWatch",
            fields=[
                (
                    "environment",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="workspaces.environment",
                    ),
                ),
                ("watched_until", models.DateTimeField()),
            ],
            options={
                "db_table": "environment_watch",
            },
        ),
        migrations.CreateModel(
            name="RunEventDay",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "environment_id",
                        "day",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ENVIRONMENT,
                ("day", models.DateField()),
                ("bytes", models.BigIntegerField()),
            ],
            options={
                "db_table": "run_event_day",
            },
        ),
        migrations.CreateModel(
            name="SchedulerHeartbeat",
            fields=[
                ID,
                ("host", models.CharField(max_length=255)),
                ("pid", models.PositiveIntegerField()),
                ("started_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("beat_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "db_table": "scheduler_heartbeat",
                "indexes": [models.Index(fields=["beat_at"], name="scheduler_heartbeat_old")],
            },
        ),
        migrations.CreateModel(
            name="WebHeartbeat",
            fields=[
                ID,
                ("host", models.CharField(max_length=255)),
                ("pid", models.PositiveIntegerField()),
                ("started_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("beat_at", models.DateTimeField(db_default=Now())),
                ("reachable_since", models.DateTimeField()),
            ],
            options={
                "db_table": "web_heartbeat",
                "indexes": [models.Index(fields=["beat_at"], name="web_heartbeat_old")],
            },
        ),
        migrations.CreateModel(
            name="Trigger",
            fields=[
                ID,
                ENVIRONMENT,
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
                (
                    "pool",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.pool",
                    ),
                ),
                ("prefer_seconds", models.PositiveSmallIntegerField(db_default=60, default=60)),
                ("start_deadline_seconds", models.PositiveIntegerField(null=True)),
                ("max_concurrent_runs", models.PositiveSmallIntegerField(null=True)),
                (
                    "retry_mode",
                    models.CharField(
                        choices=[("restart", "Restart"), ("resume", "Resume")],
                        db_default="restart",
                        default="restart",
                        max_length=7,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("description", models.CharField(blank=True, max_length=2000)),
                ("mcp_url", models.CharField(max_length=2048)),
                ("mcp_headers", models.BinaryField(null=True)),
                (
                    "mcp_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("webhook_url", models.CharField(max_length=2048, null=True)),
                ("webhook_secret", models.BinaryField(null=True)),
                (
                    "webhook_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("schedule", models.CharField(max_length=200, null=True)),
                ("timezone", models.CharField(default="UTC", max_length=64)),
                ("next_run_at", models.DateTimeField(null=True)),
                ("enabled", models.BooleanField(default=True)),
                ("max_retries", models.PositiveSmallIntegerField(default=3)),
                ("timeout_seconds", models.PositiveIntegerField(default=1800)),
                (
                    "overlap_policy",
                    models.CharField(
                        choices=[("queue", "Queue"), ("skip", "Skip")],
                        default="queue",
                        max_length=5,
                    ),
                ),
                ("retry_after_effects", models.BooleanField(db_default=True, default=True)),
                (
                    "record_events",
                    models.CharField(
                        choices=[
                            ("never", "Never"),
                            ("failures", "Failures"),
                            ("always", "Always"),
                        ],
                        db_default="failures",
                        default="failures",
                        max_length=8,
                    ),
                ),
                (
                    "alert_after_failures",
                    models.PositiveSmallIntegerField(db_default=1, default=1, null=True),
                ),
                ("success_deadline_seconds", models.PositiveIntegerField(null=True)),
                ("max_cost_usd", models.DecimalField(decimal_places=6, max_digits=14, null=True)),
                CREATED_AT,
                ("updated_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("deleted_at", models.DateTimeField(null=True)),
                (
                    "connection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="triggers",
                        to="workspaces.connection",
                    ),
                ),
                ("run_once_at", models.DateTimeField(null=True)),
                ("key", models.CharField(max_length=64, null=True)),
                ("managed_by", models.CharField(max_length=200, null=True)),
                ("allow_host_tools", models.BooleanField(db_default=False, default=False)),
                ("approvals", JSONAsGivenField(null=True)),
                ("changed_by", models.UUIDField(null=True)),
                ("fail_on_denied", models.BooleanField(db_default=False, default=False)),
                (
                    "also_changed_by",
                    ArrayField(base_field=models.UUIDField(), null=True, size=None),
                ),
            ],
            options={
                "db_table": "trigger",
                "indexes": [
                    models.Index(
                        condition=models.Q(("next_run_at__isnull", False)),
                        fields=["next_run_at", "environment", "id"],
                        name="trigger_due_in_environment",
                    ),
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=["environment", "created_at", "id"],
                        name="trigger_listed",
                    ),
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=["worker", "created_at", "id"],
                        name="trigger_of_worker",
                    ),
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True), ("pool__isnull", False)),
                        fields=["pool"],
                        name="trigger_of_pool",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("deleted_at__isnull", True), ("max_concurrent_runs__isnull", False)
                        ),
                        fields=["environment"],
                        name="trigger_limited",
                    ),
                    models.Index(
                        condition=models.Q(("connection__isnull", False)),
                        fields=["connection", "created_at", "id"],
                        name="trigger_of_connection",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("approvals__isnull", False), ("deleted_at__isnull", True)
                        ),
                        fields=["environment", "id"],
                        name="trigger_with_approvals",
                    ),
                    models.Index(
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
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("mcp_headers__isnull", True), ("mcp_key__isnull", True)),
                            models.Q(("mcp_headers__isnull", False), ("mcp_key__isnull", False)),
                            _connector="OR",
                        ),
                        name="trigger_mcp_headers_have_a_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("webhook_key__isnull", True), ("webhook_secret__isnull", True)
                            ),
                            models.Q(
                                ("webhook_key__isnull", False), ("webhook_secret__isnull", False)
                            ),
                            _connector="OR",
                        ),
                        name="trigger_webhook_secret_has_a_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("max_retries__lte", 10)), name="trigger_max_retries"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("timeout_seconds__gte", 10), ("timeout_seconds__lte", 86400)
                        ),
                        name="trigger_timeout_seconds",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("overlap_policy__in", ("queue", "skip"))),
                        name="trigger_overlap_policy",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("alert_after_failures__isnull", True),
                            models.Q(
                                ("alert_after_failures__gte", 1), ("alert_after_failures__lte", 100)
                            ),
                            _connector="OR",
                        ),
                        name="trigger_alert_after_failures",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("success_deadline_seconds__isnull", True),
                            models.Q(
                                ("success_deadline_seconds__gte", 60),
                                ("success_deadline_seconds__lte", 2592000),
                            ),
                            _connector="OR",
                        ),
                        name="trigger_success_deadline_seconds",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("prefer_seconds__lte", 600)),
                        name="trigger_prefer_seconds",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("start_deadline_seconds__isnull", True),
                            models.Q(
                                ("start_deadline_seconds__gte", 60),
                                ("start_deadline_seconds__lte", 604800),
                            ),
                            _connector="OR",
                        ),
                        name="trigger_start_deadline_seconds",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("max_concurrent_runs__isnull", True),
                            models.Q(
                                ("max_concurrent_runs__gte", 1), ("max_concurrent_runs__lte", 100)
                            ),
                            _connector="OR",
                        ),
                        name="trigger_max_concurrent_runs",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("retry_mode__in", ["restart", "resume"])),
                        name="trigger_retry_mode",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("record_events__in", ["never", "failures", "always"])),
                        name="trigger_record_events",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("max_cost_usd__isnull", True), ("max_cost_usd__gt", 0), _connector="OR"
                        ),
                        name="trigger_max_cost_usd",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                models.Q(
                                    ("schedule__isnull", False),
                                    ("run_once_at__isnull", False),
                                    _connector="OR",
                                ),
                                ("deleted_at__isnull", True),
                                ("enabled", True),
                                ("next_run_at__isnull", False),
                            ),
                            models.Q(
                                ("next_run_at__isnull", True),
                                models.Q(
                                    ("enabled", False),
                                    models.Q(
                                        ("run_once_at__isnull", True), ("schedule__isnull", True)
                                    ),
                                    ("deleted_at__isnull", False),
                                    _connector="OR",
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="trigger_next_run_at_is_true",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("run_once_at__isnull", True),
                            ("next_run_at__isnull", True),
                            ("next_run_at__lte", models.F("run_once_at")),
                            _connector="OR",
                        ),
                        name="trigger_comes_due_once",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False), ("deleted_at__isnull", True)),
                        fields=("environment", "key"),
                        name="trigger_has_own_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="EventSource",
            fields=[
                ID,
                ("name", models.CharField(max_length=200)),
                (
                    "scheme",
                    models.CharField(
                        choices=[
                            ("standard", "Standard"),
                            ("github", "Github"),
                            ("gitlab", "Gitlab"),
                            ("stripe", "Stripe"),
                            ("slack", "Slack"),
                            ("hmac", "Hmac"),
                            ("bearer", "Bearer"),
                        ],
                        max_length=8,
                    ),
                ),
                ("secrets", models.BinaryField(null=True)),
                ("hmac", models.JSONField(null=True)),
                ("enabled", models.BooleanField(default=True)),
                ("last_event_at", models.DateTimeField(null=True)),
                CREATED_AT,
                ("updated_at", models.DateTimeField(db_default=Now())),
                ("deleted_at", models.DateTimeField(null=True)),
                ENVIRONMENT,
                (
                    "secrets_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("key", models.CharField(max_length=64, null=True)),
                ("managed_by", models.CharField(max_length=200, null=True)),
            ],
            options={
                "verbose_name": "source",
                "db_table": "event_source",
                "indexes": [
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=["environment", "created_at", "id"],
                        name="event_source_listed",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "scheme__in",
                                [
                                    "standard",
                                    "github",
                                    "gitlab",
                                    "stripe",
                                    "slack",
                                    "hmac",
                                    "bearer",
                                ],
                            )
                        ),
                        name="event_source_scheme",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("deleted_at__isnull", True),
                                ("secrets__isnull", False),
                                ("secrets_key__isnull", False),
                            ),
                            models.Q(
                                ("deleted_at__isnull", False),
                                ("secrets__isnull", True),
                                ("secrets_key__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="event_source_has_secrets",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("hmac__isnull", False), ("scheme", "hmac")),
                            models.Q(
                                ("hmac__isnull", True), models.Q(("scheme", "hmac"), _negated=True)
                            ),
                            _connector="OR",
                        ),
                        name="event_source_hmac",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False), ("deleted_at__isnull", True)),
                        fields=("environment", "key"),
                        name="event_source_has_own_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Budget",
            fields=[
                ID,
                ENVIRONMENT,
                ("name", models.CharField(max_length=200)),
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.trigger",
                    ),
                ),
                (
                    "period",
                    models.CharField(choices=[("day", "Day"), ("month", "Month")], max_length=5),
                ),
                ("timezone", models.CharField(default="UTC", max_length=64)),
                ("limit_usd", models.DecimalField(decimal_places=6, max_digits=20, null=True)),
                ("limit_runs", models.PositiveIntegerField(null=True)),
                (
                    "when_reached",
                    models.CharField(
                        choices=[("hold", "Hold"), ("reject", "Reject"), ("notify", "Notify")],
                        default="hold",
                        max_length=6,
                    ),
                ),
                (
                    "notice_at_pct",
                    ArrayField(
                        base_field=models.PositiveSmallIntegerField(), default=list, size=None
                    ),
                ),
                ("reserve_usd", models.DecimalField(decimal_places=6, default=1, max_digits=20)),
                ("count_notional", models.BooleanField(default=True)),
                ("generation", models.PositiveIntegerField(default=0)),
                CREATED_AT,
                ("updated_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("deleted_at", models.DateTimeField(null=True)),
                ("key", models.CharField(max_length=64, null=True)),
                ("managed_by", models.CharField(max_length=200, null=True)),
            ],
            options={
                "db_table": "budget",
                "indexes": [
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=["environment", "created_at", "id"],
                        name="budget_listed",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("period__in", ("day", "month"))), name="budget_period"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("when_reached__in", ("hold", "reject", "notify"))),
                        name="budget_when_reached",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("limit_usd__isnull", True), ("limit_usd__gte", 0), _connector="OR"
                        ),
                        name="budget_limit_usd",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reserve_usd__gte", 0)), name="budget_reserve_usd"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False), ("deleted_at__isnull", True)),
                        fields=("environment", "key"),
                        name="budget_has_own_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="TriggerHealth",
            fields=[
                (
                    "trigger",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=models.PROTECT,
                        primary_key=True,
                        related_name="judged",
                        serialize=False,
                        to="triggers.trigger",
                    ),
                ),
                ENVIRONMENT,
                ("counts_from", models.DateTimeField(null=True)),
                ("has_outcome", models.BooleanField(default=False)),
                ("failures", models.PositiveSmallIntegerField(default=0)),
                ("is_failing", models.BooleanField(default=False)),
                ("late_since", models.DateTimeField(null=True)),
                ("check_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "trigger_health",
                "indexes": [
                    models.Index(
                        condition=models.Q(("check_at__isnull", False)),
                        fields=["check_at"],
                        name="trigger_health_due",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("is_failing", False),
                            models.Q(("failures__gte", 1), ("has_outcome", True)),
                            _connector="OR",
                        ),
                        name="trigger_health_failing_has_failures",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="TriggerRevision",
            fields=[
                ID,
                ENVIRONMENT,
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="revisions",
                        to="triggers.trigger",
                    ),
                ),
                ("prompt", models.TextField()),
                ("model", models.CharField(max_length=200, null=True)),
                ("output_schema", JSONAsGivenField(null=True)),
                CREATED_AT,
                ("created_by_type", models.CharField(max_length=8, null=True)),
                ("created_by_id", models.UUIDField(null=True)),
            ],
            options={
                "db_table": "trigger_revision",
                "indexes": [
                    models.Index(
                        fields=["trigger", "created_at", "id"], name="trigger_revision_of_trigger"
                    )
                ],
            },
        ),
        migrations.AddField(
            model_name="trigger",
            name="revision",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=models.PROTECT,
                related_name="+",
                to="triggers.triggerrevision",
            ),
        ),
        migrations.AddIndex(
            "trigger", models.Index(fields=["revision", "environment"], name="trigger_of_revision")
        ),
        migrations.CreateModel(
            name="EventKey",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "source_id",
                        "key",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("key", models.BinaryField(max_length=32)),
                ("event_id", models.UUIDField()),
                (
                    "source",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.eventsource",
                    ),
                ),
                ("expires_at", models.DateTimeField()),
                ENVIRONMENT,
            ],
            options={
                "db_table": "event_key",
                "indexes": [models.Index(fields=["expires_at"], name="event_key_old")],
            },
        ),
        migrations.CreateModel(
            name="Listener",
            fields=[
                ID,
                ("position", models.PositiveSmallIntegerField()),
                (
                    "outcome",
                    models.CharField(
                        choices=[("succeeded", "Succeeded"), ("failed", "Failed"), ("any", "Any")],
                        max_length=9,
                        null=True,
                    ),
                ),
                (
                    "types",
                    ArrayField(base_field=models.CharField(max_length=200), null=True, size=None),
                ),
                ("where", models.JSONField(null=True)),
                ("fields", models.JSONField(null=True)),
                ("coalesce", models.JSONField(null=True)),
                ENVIRONMENT,
                (
                    "source",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="listeners",
                        to="triggers.eventsource",
                    ),
                ),
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="listeners",
                        to="triggers.trigger",
                    ),
                ),
                (
                    "upstream",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="heard_by",
                        to="triggers.trigger",
                    ),
                ),
            ],
            options={
                "db_table": "listener",
                "indexes": [
                    models.Index(
                        condition=models.Q(("source__isnull", False)),
                        fields=["source", "trigger"],
                        name="listener_to_source",
                    ),
                    models.Index(
                        condition=models.Q(("upstream__isnull", False)),
                        fields=["upstream", "trigger"],
                        name="listener_to_trigger",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("trigger", "position", "environment"),
                        name="listener_one_in_position",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("position__lt", 10)), name="listener_position"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("outcome__isnull", True),
                                ("source__isnull", False),
                                ("upstream__isnull", True),
                            ),
                            models.Q(
                                ("coalesce__isnull", True),
                                ("fields__isnull", True),
                                ("outcome__in", ["succeeded", "failed", "any"]),
                                ("outcome__isnull", False),
                                ("source__isnull", True),
                                ("types__isnull", True),
                                ("upstream__isnull", False),
                                ("where__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="listener_to_source_or_trigger",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("upstream__isnull", True),
                            models.Q(("upstream", models.F("trigger")), _negated=True),
                            _connector="OR",
                        ),
                        name="listener_not_to_itself",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BudgetWindow",
            fields=[
                ID,
                ENVIRONMENT,
                (
                    "budget",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="windows",
                        to="triggers.budget",
                    ),
                ),
                ("generation", models.PositiveIntegerField()),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("spent_usd", models.DecimalField(decimal_places=6, default=0, max_digits=20)),
                ("reserved_usd", models.DecimalField(decimal_places=6, default=0, max_digits=20)),
                (
                    "notional_spent_usd",
                    models.DecimalField(decimal_places=6, default=0, max_digits=20),
                ),
                (
                    "notional_reserved_usd",
                    models.DecimalField(decimal_places=6, default=0, max_digits=20),
                ),
                ("runs", models.PositiveIntegerField(default=0)),
                ("changes", models.BigIntegerField(default=0)),
                ("is_changed", models.BooleanField(default=True)),
                ("noticed_pct", models.PositiveSmallIntegerField(default=0)),
            ],
            options={
                "db_table": "budget_window",
                "indexes": [
                    models.Index(
                        condition=models.Q(("is_changed", True)),
                        fields=["id"],
                        name="budget_window_changed",
                    ),
                    models.Index(
                        condition=models.Q(("noticed_pct__gt", 0)),
                        fields=["ends_at"],
                        name="budget_window_noticed",
                    ),
                    models.Index(fields=["ends_at"], name="budget_window_ended"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("budget", "generation", "starts_at", "environment"),
                        name="budget_window_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("ends_at__gt", models.F("starts_at"))),
                        name="budget_window_has_a_length",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("notional_reserved_usd__gte", 0),
                            ("notional_spent_usd__gte", 0),
                            ("reserved_usd__gte", models.F("notional_reserved_usd")),
                            ("spent_usd__gte", models.F("notional_spent_usd")),
                        ),
                        name="budget_window_sums",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                ID,
                ENVIRONMENT,
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="runs",
                        to="triggers.trigger",
                    ),
                ),
                (
                    "revision",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.triggerrevision",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
                (
                    "pool",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.pool",
                    ),
                ),
                ("pool_from", models.DateTimeField(null=True)),
                (
                    "avoided_worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("claimed", "Claimed"),
                            ("running", "Running"),
                            ("waiting", "Waiting"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("timed_out", "Timed Out"),
                            ("canceled", "Canceled"),
                        ],
                        default="queued",
                        max_length=9,
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("manual", "Manual"),
                            ("api", "Api"),
                            ("schedule", "Schedule"),
                            ("retry", "Retry"),
                            ("event", "Event"),
                            ("chain", "Chain"),
                        ],
                        max_length=8,
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField(default=1)),
                ("max_retries", models.PositiveSmallIntegerField()),
                ("timeout_seconds", models.PositiveIntegerField()),
                (
                    "retry_of",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                (
                    "rerun_of",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                ("retried", models.BooleanField(db_default=False, default=False)),
                ("scheduled_for", models.DateTimeField(null=True)),
                ("available_at", models.DateTimeField(db_default=Now())),
                ("start_deadline_at", models.DateTimeField(null=True)),
                ("resume_until", models.DateTimeField(null=True)),
                ("had_effects", models.BooleanField(db_default=False, default=False)),
                ("at_limit", models.BooleanField(db_default=False, default=False)),
                ("limit_retries", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("queued_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("claimed_at", models.DateTimeField(null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "ended_by",
                    models.CharField(
                        choices=[
                            ("worker", "Worker"),
                            ("user", "User"),
                            ("lease", "Lease"),
                            ("deadline", "Deadline"),
                            ("late_result", "Late Result"),
                            ("start_deadline", "Start Deadline"),
                            ("had_effects", "Had Effects"),
                            ("approval_expired", "Approval Expired"),
                            ("approval_unreachable", "Approval Unreachable"),
                        ],
                        max_length=20,
                        null=True,
                    ),
                ),
                ("slot", models.PositiveSmallIntegerField(null=True)),
                ("trigger_slot", models.PositiveSmallIntegerField(null=True)),
                ("claim_id", models.CharField(max_length=64, null=True)),
                ("lease_expires_at", models.DateTimeField(null=True)),
                ("deadline_at", models.DateTimeField(null=True)),
                ("cancel_requested_at", models.DateTimeField(null=True)),
                ("exit_code", models.BigIntegerField(null=True)),
                (
                    "fault_class",
                    models.CharField(
                        choices=[("infra", "Infra"), ("client", "Client"), ("none", "None")],
                        max_length=6,
                        null=True,
                    ),
                ),
                ("short_message", models.CharField(max_length=500, null=True)),
                ("model", models.CharField(max_length=200, null=True)),
                ("input_tokens", models.BigIntegerField(null=True)),
                ("output_tokens", models.BigIntegerField(null=True)),
                ("cache_read_tokens", models.BigIntegerField(null=True)),
                ("cache_creation_tokens", models.BigIntegerField(null=True)),
                ("cost_usd", models.DecimalField(decimal_places=6, max_digits=14, null=True)),
                ("num_turns", models.IntegerField(null=True)),
                ("session_id", models.CharField(max_length=255, null=True)),
                ("tool_calls_total", models.IntegerField(null=True)),
                ("tool_calls_effects", models.IntegerField(null=True)),
                ("tool_calls_unknown", models.IntegerField(null=True)),
                ("chain_depth", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("coalesce_key", models.BinaryField(max_length=32, null=True)),
                ("event_id", models.UUIDField(null=True)),
                ("active_ms", models.BigIntegerField(null=True)),
                ("denials_total", models.IntegerField(null=True)),
                (
                    "denied_tools",
                    ArrayField(base_field=models.CharField(max_length=200), null=True, size=None),
                ),
                ("earlier_calls", ArrayField(base_field=models.IntegerField(), null=True, size=3)),
                ("requested_by", models.UUIDField(null=True)),
                ("spells", models.PositiveSmallIntegerField(db_default=0, default=0)),
                (
                    "also_requested_by",
                    ArrayField(base_field=models.UUIDField(), null=True, size=None),
                ),
            ],
            options={
                "db_table": "run",
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "queued")),
                        fields=["worker", "available_at", "id"],
                        name="run_polled",
                    ),
                    models.Index(
                        condition=models.Q(("pool__isnull", False), ("status", "queued")),
                        fields=["pool", "pool_from", "id"],
                        name="run_polled_of_pool",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("start_deadline_at__isnull", False), ("status", "queued")
                        ),
                        fields=["start_deadline_at"],
                        name="run_start_deadline",
                    ),
                    models.Index(fields=["environment", "queued_at", "id"], name="run_listed"),
                    models.Index(fields=["trigger", "queued_at", "id"], name="run_of_trigger"),
                    models.Index(fields=["worker", "queued_at", "id"], name="run_of_worker"),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", True)),
                        fields=["environment", "status", "queued_at", "id"],
                        name="run_unfinished_of_status",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", True)),
                        fields=["trigger", "available_at", "id"],
                        name="run_unfinished_of_trigger",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False)),
                        fields=[
                            "environment",
                            "source",
                            "status",
                            "fault_class",
                            "queued_at",
                            "id",
                        ],
                        name="run_of_source",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False)),
                        fields=["trigger", "source", "status", "fault_class", "queued_at", "id"],
                        name="run_of_trigger_and_source",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False)),
                        fields=["worker", "source", "status", "fault_class", "queued_at", "id"],
                        name="run_of_worker_and_source",
                    ),
                    models.Index(
                        condition=models.Q(("fault_class__isnull", False)),
                        fields=[
                            "trigger",
                            "worker",
                            "source",
                            "status",
                            "fault_class",
                            "queued_at",
                            "id",
                        ],
                        name="run_of_pair_and_source",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("ended_at__isnull", False),
                            ("fault_class", "infra"),
                            ("retried", False),
                        ),
                        fields=["environment", "status", "queued_at", "id"],
                        name="run_final_fault",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("ended_at__isnull", False),
                            ("fault_class", "infra"),
                            ("retried", False),
                        ),
                        fields=["trigger", "status", "queued_at", "id"],
                        name="run_final_fault_of_trigger",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("ended_at__isnull", False),
                            ("fault_class", "infra"),
                            ("retried", False),
                        ),
                        fields=["worker", "status", "queued_at", "id"],
                        name="run_final_fault_of_worker",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("ended_at__isnull", False),
                            ("fault_class", "infra"),
                            ("retried", False),
                        ),
                        fields=["trigger", "worker", "status", "queued_at", "id"],
                        name="run_final_fault_of_pair",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False), ("pool__isnull", False)),
                        fields=["pool", "queued_at", "id"],
                        name="run_ended_of_pool",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False), ("pool__isnull", False)),
                        fields=["pool", "source", "status", "fault_class", "queued_at", "id"],
                        name="run_of_pool_and_source",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False), ("pool__isnull", False)),
                        fields=[
                            "pool",
                            "trigger",
                            "source",
                            "status",
                            "fault_class",
                            "queued_at",
                            "id",
                        ],
                        name="run_of_pool_and_trigger",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False), ("pool__isnull", False)),
                        fields=[
                            "pool",
                            "worker",
                            "source",
                            "status",
                            "fault_class",
                            "queued_at",
                            "id",
                        ],
                        name="run_of_pool_and_worker",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("ended_at__isnull", False),
                            ("fault_class", "infra"),
                            ("pool__isnull", False),
                            ("retried", False),
                        ),
                        fields=["pool", "status", "queued_at", "id"],
                        name="run_final_fault_of_pool",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False)),
                        fields=["trigger", "status", "ended_at", "id"],
                        name="run_of_trigger_by_end",
                    ),
                    models.Index(fields=["revision", "environment"], name="run_of_revision"),
                    models.Index(
                        condition=models.Q(("rerun_of__isnull", False)),
                        fields=["rerun_of", "environment"],
                        name="run_rerun",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("attempt__gte", 1), ("status__in", ("failed", "timed_out"))
                        ),
                        fields=["ended_at", "id"],
                        name="run_failed",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False)),
                        fields=["environment", "ended_at"],
                        include=("cost_usd",),
                        name="run_ended_cost",
                    ),
                    models.Index(
                        condition=models.Q(("spells__gt", 0), ("status", "queued")),
                        fields=["worker"],
                        name="run_decided",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("status__in", ("queued", "waiting")),
                            models.Q(("had_effects", True), ("spells__gt", 0), _connector="OR"),
                        ),
                        fields=["resume_until"],
                        name="run_resume_until",
                    ),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False)),
                        fields=["environment", "ended_at"],
                        include=(
                            "status",
                            "source",
                            "trigger",
                            "worker",
                            "model",
                            "started_at",
                            "active_ms",
                            "cost_usd",
                            "input_tokens",
                            "output_tokens",
                        ),
                        name="run_ended",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("slot__isnull", False)),
                        fields=("worker", "slot", "environment"),
                        name="run_one_in_slot",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("trigger_slot__isnull", False)),
                        fields=("trigger", "trigger_slot", "environment"),
                        name="run_one_in_trigger_slot",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("source", "schedule")),
                        fields=("trigger", "scheduled_for", "environment"),
                        name="run_one_for_tick",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("retry_of__isnull", False)),
                        fields=("retry_of", "environment"),
                        name="run_one_retry",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("deadline_at__isnull", False),
                                ("lease_expires_at__isnull", False),
                                ("slot__isnull", False),
                                ("status__in", ("claimed", "running")),
                                ("worker__isnull", False),
                            ),
                            models.Q(
                                ("deadline_at__isnull", True),
                                ("lease_expires_at__isnull", True),
                                ("slot__isnull", True),
                                models.Q(("status__in", ("claimed", "running")), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="run_held",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("started_at__isnull", True),
                            ("claimed_at__isnull", False),
                            _connector="OR",
                        ),
                        name="run_started_was_claimed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("attempt__gt", 1), ("retry_of__isnull", False), ("source", "retry")
                            ),
                            models.Q(
                                ("attempt", 1),
                                ("retry_of__isnull", True),
                                models.Q(("source", "retry"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="run_retry_has_an_original",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("source", "schedule"), _negated=True),
                            ("scheduled_for__isnull", False),
                            _connector="OR",
                        ),
                        name="run_scheduled_has_a_tick",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("rerun_of__isnull", True),
                            ("source__in", ("manual", "api")),
                            _connector="OR",
                        ),
                        name="run_rerun_was_requested",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("cost_usd__isnull", True), ("cost_usd__gte", 0), _connector="OR"
                        ),
                        name="run_cost",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("tool_calls_effects__isnull", True),
                                ("tool_calls_total__isnull", True),
                                ("tool_calls_unknown__isnull", True),
                            ),
                            models.Q(
                                ("tool_calls_effects__gte", 0),
                                ("tool_calls_effects__isnull", False),
                                ("tool_calls_effects__lte", models.F("tool_calls_total")),
                                ("tool_calls_total__isnull", False),
                                ("tool_calls_unknown__gte", 0),
                                ("tool_calls_unknown__isnull", False),
                                ("tool_calls_unknown__lte", models.F("tool_calls_total")),
                            ),
                            _connector="OR",
                        ),
                        name="run_tool_calls",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("trigger_slot__isnull", True),
                            models.Q(("slot__isnull", False), ("trigger_slot__gte", 1)),
                            _connector="OR",
                        ),
                        name="run_in_trigger_slot_is_held",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("avoided_worker__isnull", True),
                                ("pool__isnull", True),
                                ("pool_from__isnull", True),
                            ),
                            models.Q(("pool__isnull", False), ("pool_from__isnull", False)),
                            _connector="OR",
                        ),
                        name="run_pool_from",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("coalesce_key__isnull", False), ("status", "queued")),
                        fields=("trigger", "coalesce_key", "environment"),
                        name="run_one_to_join",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("source__in", ["manual", "api", "schedule", "retry", "event", "chain"])
                        ),
                        name="run_source",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                models.Q(("source__in", ("event", "chain")), _negated=True),
                                ("event_id__isnull", False),
                                _connector="OR",
                            ),
                            models.Q(
                                models.Q(("source", "schedule"), _negated=True),
                                ("event_id__isnull", True),
                                _connector="OR",
                            ),
                        ),
                        name="run_event",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("chain_depth", 0), models.Q(("source", "chain"), _negated=True)
                            ),
                            models.Q(
                                ("chain_depth__gte", 1),
                                ("chain_depth__lte", 8),
                                ("event_id__isnull", False),
                                models.Q(("source__in", ("event", "schedule")), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="run_chain_depth",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("coalesce_key__isnull", True), ("source", "event"), _connector="OR"
                        ),
                        name="run_coalesce_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("ended_at__isnull", False),
                                (
                                    "ended_by__in",
                                    [
                                        "worker",
                                        "user",
                                        "lease",
                                        "deadline",
                                        "late_result",
                                        "start_deadline",
                                        "had_effects",
                                        "approval_expired",
                                        "approval_unreachable",
                                    ],
                                ),
                                ("ended_by__isnull", False),
                                ("fault_class__isnull", False),
                                ("status__in", ("succeeded", "failed", "timed_out", "canceled")),
                                models.Q(
                                    models.Q(
                                        ("fault_class", "none"),
                                        ("status__in", ("succeeded", "canceled")),
                                    ),
                                    models.Q(
                                        ("fault_class__in", ("infra", "client")),
                                        ("status__in", ("failed", "timed_out")),
                                    ),
                                    _connector="OR",
                                ),
                            ),
                            models.Q(
                                ("ended_at__isnull", True),
                                ("ended_by__isnull", True),
                                ("fault_class__isnull", True),
                                models.Q(
                                    (
                                        "status__in",
                                        ("succeeded", "failed", "timed_out", "canceled"),
                                    ),
                                    _negated=True,
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="run_ended",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("claimed_at__isnull", True),
                                ("started_at__isnull", True),
                                ("status", "queued"),
                            ),
                            models.Q(
                                ("claimed_at__isnull", False),
                                ("started_at__isnull", True),
                                ("status", "claimed"),
                            ),
                            models.Q(
                                ("claimed_at__isnull", False),
                                ("started_at__isnull", False),
                                ("status", "running"),
                            ),
                            models.Q(("claimed_at__isnull", False), ("status", "waiting")),
                            models.Q(
                                ("claimed_at__isnull", False),
                                ("status__in", ("succeeded", "failed", "timed_out")),
                            ),
                            models.Q(
                                ("claimed_at__isnull", True),
                                (
                                    "ended_by__in",
                                    ("start_deadline", "had_effects", "approval_unreachable"),
                                ),
                                ("started_at__isnull", True),
                                ("status", "failed"),
                            ),
                            models.Q(
                                ("status", "canceled"),
                                models.Q(
                                    ("claimed_at__isnull", False),
                                    models.Q(
                                        ("claimed_at__isnull", True), ("started_at__isnull", True)
                                    ),
                                    _connector="OR",
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="run_times_of_state",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("had_effects", False), ("resume_until__isnull", True)),
                            models.Q(
                                ("resume_until__isnull", False),
                                ("worker__isnull", False),
                                models.Q(
                                    ("retry_of__isnull", False), ("spells__gt", 0), _connector="OR"
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="run_resuming_has_a_session",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("status", "waiting"), _negated=True),
                            models.Q(
                                ("claim_id__isnull", True),
                                ("resume_until__isnull", False),
                                ("session_id__isnull", False),
                                ("spells__gt", 0),
                            ),
                            _connector="OR",
                        ),
                        name="run_waiting",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("active_ms__isnull", True),
                                ("earlier_calls__isnull", True),
                                ("spells", 0),
                            ),
                            models.Q(
                                ("active_ms__gte", 0),
                                ("active_ms__isnull", False),
                                ("spells__gt", 0),
                                ("spells__lt", 20),
                            ),
                            _connector="OR",
                        ),
                        name="run_spells",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("denials_total__isnull", True), ("denied_tools__isnull", True)
                            ),
                            models.Q(
                                ("denials_total__gte", 0),
                                ("denials_total__isnull", False),
                                ("denied_tools__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="run_denials",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
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
                ENVIRONMENT,
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="deliveries",
                        to="triggers.trigger",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="deliveries",
                        to="triggers.run",
                    ),
                ),
                ("message_id", models.CharField(max_length=64)),
                ("url", models.CharField(max_length=2048)),
                ("body", models.TextField()),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "db_table": "delivery",
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["next_attempt_at", "host"],
                        name="delivery_due_by_host",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["environment", "host", "next_attempt_at"],
                        name="delivery_pending_by_host",
                    ),
                    models.Index(fields=["trigger", "created_at", "id"], name="delivery_listed"),
                    models.Index(
                        condition=models.Q(("run__isnull", False)),
                        fields=["run"],
                        name="delivery_of_run",
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
                        name="delivery_pending_is_due",
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
                        name="delivery_delivered_at",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RunEventLog",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=models.PROTECT,
                        primary_key=True,
                        related_name="events",
                        serialize=False,
                        to="triggers.run",
                    ),
                ),
                ENVIRONMENT,
                ("next_seq", models.BigIntegerField(db_default=1, default=1)),
                ("stored", models.PositiveIntegerField(db_default=0, default=0)),
                ("bytes", models.PositiveIntegerField(db_default=0, default=0)),
                ("is_truncated", models.BooleanField(db_default=False, default=False)),
                ("first_at", models.DateTimeField(null=True)),
                ("last_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "run_event_log",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("stored__lt", models.F("next_seq")), ("stored__lte", 20001)
                        ),
                        name="run_event_log_counts",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RunResult",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=models.PROTECT,
                        primary_key=True,
                        related_name="result",
                        serialize=False,
                        to="triggers.run",
                    ),
                ),
                ENVIRONMENT,
                ("output", JSONAsGivenField(null=True)),
                ("tool_calls", JSONAsGivenField(null=True)),
            ],
            options={
                "db_table": "run_result",
            },
        ),
        migrations.CreateModel(
            name="RunText",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=models.PROTECT,
                        primary_key=True,
                        related_name="text",
                        serialize=False,
                        to="triggers.run",
                    ),
                ),
                ENVIRONMENT,
                ("mcp_url", models.CharField(max_length=2048, null=True)),
                ("payload", JSONAsGivenField(null=True)),
                ("error_message", models.CharField(max_length=8000, null=True)),
                ("late_result", JSONAsGivenField(null=True)),
                ("handed_to", ArrayField(base_field=models.TextField(), null=True, size=None)),
            ],
            options={
                "db_table": "run_text",
            },
        ),
        migrations.CreateModel(
            name="RunReservation",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id",
                        "window_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ENVIRONMENT,
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                (
                    "window",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.budgetwindow",
                    ),
                ),
                ("amount_usd", models.DecimalField(decimal_places=6, max_digits=20)),
                ("is_cap", models.BooleanField()),
                ("cost_usd", models.DecimalField(decimal_places=6, max_digits=20, null=True)),
                ("is_estimate", models.BooleanField(default=False)),
                ("is_notional", models.BooleanField()),
                ("settled_at", models.DateTimeField(null=True)),
                (
                    "earlier_usd",
                    models.DecimalField(db_default=0, decimal_places=6, default=0, max_digits=20),
                ),
                ("spell", models.PositiveSmallIntegerField(db_default=0, default=0)),
            ],
            options={
                "db_table": "run_reservation",
                "indexes": [
                    models.Index(
                        condition=models.Q(("settled_at__isnull", True)),
                        fields=["run"],
                        name="run_reservation_open",
                    ),
                    models.Index(
                        condition=models.Q(("is_estimate", True)),
                        fields=["settled_at"],
                        name="run_reservation_estimate",
                    ),
                    models.Index(fields=["window"], name="run_reservation_of_window"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("amount_usd__gte", 0),
                            models.Q(
                                ("cost_usd__isnull", True), ("cost_usd__gte", 0), _connector="OR"
                            ),
                        ),
                        name="run_reservation_amounts",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("cost_usd__isnull", True),
                                ("is_estimate", False),
                                ("settled_at__isnull", True),
                            ),
                            models.Q(("cost_usd__isnull", False), ("settled_at__isnull", False)),
                            _connector="OR",
                        ),
                        name="run_reservation_settled",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Tick",
            fields=[
                ID,
                ENVIRONMENT,
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="ticks",
                        to="triggers.trigger",
                    ),
                ),
                ("tick_at", models.DateTimeField()),
                ("last_tick_at", models.DateTimeField()),
                (
                    "decision",
                    models.CharField(
                        choices=[
                            ("fired", "Fired"),
                            ("skipped_overlap", "Skipped Overlap"),
                            ("skipped_missed", "Skipped Missed"),
                            ("skipped_no_worker", "Skipped No Worker"),
                            ("skipped_paused", "Skipped Paused"),
                        ],
                        max_length=17,
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                (
                    "blocked_by",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                ("missed_count", models.PositiveIntegerField(default=0)),
                ("decided_at", models.DateTimeField(db_default=Now(), editable=False)),
            ],
            options={
                "db_table": "tick",
                "indexes": [
                    models.Index(
                        condition=models.Q(("run__isnull", False)),
                        fields=["run"],
                        name="tick_of_run",
                    ),
                    models.Index(
                        fields=["trigger", "decision", "tick_at", "id"], name="tick_by_decision"
                    ),
                    models.Index(
                        condition=models.Q(("blocked_by__isnull", False)),
                        fields=["blocked_by", "environment"],
                        name="tick_blocked",
                    ),
                    models.Index(
                        models.F("environment"),
                        Greatest("decided_at", "last_tick_at"),
                        condition=models.Q(("run__isnull", True)),
                        name="tick_without_run",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("trigger", "tick_at", "environment"), name="tick_one_decision"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("decision", "fired"), ("run__isnull", False)),
                            models.Q(
                                ("run__isnull", True),
                                models.Q(("decision", "fired"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="tick_fired_has_a_run",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                (
                                    "decision__in",
                                    ("skipped_missed", "skipped_no_worker", "skipped_paused"),
                                ),
                                ("last_tick_at__gte", models.F("tick_at")),
                                ("missed_count__gte", 1),
                            ),
                            models.Q(
                                ("last_tick_at", models.F("tick_at")),
                                ("missed_count", 0),
                                models.Q(
                                    ("decision__in", ("skipped_missed", "skipped_paused")),
                                    _negated=True,
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="tick_missed_is_counted",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "decision__in",
                                [
                                    "fired",
                                    "skipped_overlap",
                                    "skipped_missed",
                                    "skipped_no_worker",
                                    "skipped_paused",
                                ],
                            )
                        ),
                        name="tick_decision",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("blocked_by__isnull", True),
                            ("decision", "skipped_overlap"),
                            _connector="OR",
                        ),
                        name="tick_blocked_was_skipped",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="IdempotencyKey",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "trigger_id",
                        "caller_id",
                        "key",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ENVIRONMENT,
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.trigger",
                    ),
                ),
                ("caller_id", models.UUIDField()),
                ("key", models.CharField(max_length=255)),
                ("body_digest", models.BinaryField(max_length=32)),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                CREATED_AT,
            ],
            options={
                "db_table": "idempotency_key",
                "indexes": [
                    models.Index(fields=["created_at"], name="idempotency_key_old"),
                    models.Index(fields=["run"], name="idempotency_key_of_run"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Event",
            fields=[
                ID,
                ("type", models.CharField(max_length=200, null=True)),
                ("given_id", models.CharField(max_length=255, null=True)),
                ("body", JSONAsGivenField(null=True)),
                ("duplicates", models.PositiveIntegerField(db_default=0, default=0)),
                ("received_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("decided_at", models.DateTimeField(null=True)),
                ENVIRONMENT,
                (
                    "replay_of",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.event",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                (
                    "source",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="events",
                        to="triggers.eventsource",
                    ),
                ),
            ],
            options={
                "db_table": "event",
                "indexes": [
                    models.Index(
                        condition=models.Q(("source__isnull", False)),
                        fields=["source", "received_at", "id"],
                        name="event_listed",
                    ),
                    models.Index(fields=["received_at", "id"], name="event_old"),
                    models.Index(
                        condition=models.Q(("replay_of__isnull", False)),
                        fields=["replay_of", "environment"],
                        name="event_replay",
                    ),
                    models.Index(
                        condition=models.Q(("decided_at__isnull", True)),
                        fields=["environment", "received_at", "id"],
                        name="event_undecided",
                    ),
                    models.Index(
                        condition=models.Q(("source__isnull", False)),
                        fields=["environment", "received_at", "id"],
                        name="event_listed_of_all",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("run__isnull", False)),
                        fields=("run", "environment"),
                        name="event_one_of_run",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("body__isnull", False),
                                ("decided_at__isnull", False),
                                ("run__isnull", True),
                                ("source__isnull", False),
                            ),
                            models.Q(
                                ("body__isnull", True),
                                ("duplicates", 0),
                                ("given_id__isnull", True),
                                ("replay_of__isnull", True),
                                ("run__isnull", False),
                                ("source__isnull", True),
                                ("type__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="event_of_source_or_run",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Approval",
            fields=[
                ID,
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("approved", "Approved"),
                            ("rejected", "Rejected"),
                            ("expired", "Expired"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ("tool", models.CharField(max_length=200)),
                ("arguments", JSONAsGivenField()),
                ("arguments_hash", models.CharField(max_length=64)),
                ("tool_schema_hash", models.CharField(max_length=64)),
                ("calls_before", models.IntegerField(null=True)),
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
                ("barred", ArrayField(base_field=models.UUIDField(), default=list, size=None)),
                CREATED_AT,
                ("expires_at", models.DateTimeField()),
                ("closed_at", models.DateTimeField(null=True)),
                ("decided_by", models.UUIDField(null=True)),
                ("reason", models.CharField(max_length=1000, null=True)),
                ("spent_at", models.DateTimeField(null=True)),
                ENVIRONMENT,
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="approvals",
                        to="triggers.run",
                    ),
                ),
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.trigger",
                    ),
                ),
                ("remind_at", models.DateTimeField(null=True)),
                ("allow_host_tools", models.BooleanField(null=True)),
                ("not_requester", models.BooleanField(db_default=False, default=False)),
                ("rules", JSONAsGivenField(null=True)),
            ],
            options={
                "db_table": "approval",
                "indexes": [
                    models.Index(
                        fields=["environment", "created_at", "id"], name="approval_listed"
                    ),
                    models.Index(
                        fields=["environment", "status", "created_at", "id"],
                        name="approval_of_status",
                    ),
                    models.Index(fields=["run", "created_at"], name="approval_of_run"),
                    models.Index(
                        condition=models.Q(("remind_at__isnull", False), ("status", "pending")),
                        fields=["remind_at"],
                        name="approval_remind",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("status", "pending")),
                        fields=("run", "environment"),
                        name="approval_one_pending",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("closed_at__isnull", True), ("status", "pending")),
                            models.Q(
                                ("closed_at__isnull", False),
                                (
                                    "status__in",
                                    ["pending", "approved", "rejected", "expired", "withdrawn"],
                                ),
                                models.Q(("status", "pending"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="approval_closed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("decided_by__isnull", False),
                                ("status__in", ("approved", "rejected")),
                            ),
                            models.Q(
                                ("decided_by__isnull", True),
                                ("reason__isnull", True),
                                models.Q(("status__in", ("approved", "rejected")), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="approval_decided_by_somebody",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("spent_at__isnull", True), ("status", "approved"), _connector="OR"
                        ),
                        name="approval_spent_was_approved",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ("operator", "admin", "owner"))),
                        name="approval_role",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="DeliveryAttempt",
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
                        "delivery_id",
                        "n",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ENVIRONMENT,
                (
                    "delivery",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="attempts",
                        to="triggers.delivery",
                    ),
                ),
            ],
            options={
                "db_table": "delivery_attempt",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status_code__isnull", False),
                            ("error__isnull", False),
                            _connector="OR",
                        ),
                        name="delivery_attempt_has_an_end",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="EventDecision",
            fields=[
                ID,
                ("received_at", models.DateTimeField()),
                (
                    "decision",
                    models.CharField(
                        choices=[
                            ("fired", "Fired"),
                            ("filtered", "Filtered"),
                            ("coalesced", "Coalesced"),
                            ("refused", "Refused"),
                        ],
                        max_length=9,
                    ),
                ),
                ("code", models.CharField(max_length=40, null=True)),
                ("clause", models.JSONField(null=True)),
                ENVIRONMENT,
                (
                    "event",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="decisions",
                        to="triggers.event",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.trigger",
                    ),
                ),
                (
                    "source",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="triggers.eventsource",
                    ),
                ),
            ],
            options={
                "db_table": "event_decision",
                "indexes": [
                    models.Index(
                        condition=models.Q(("source__isnull", False)),
                        fields=["source", "decision", "received_at", "event"],
                        name="event_decision_of_source",
                    ),
                    models.Index(
                        fields=["trigger", "received_at", "id"], name="event_decision_of_trigger"
                    ),
                    models.Index(
                        condition=models.Q(("run__isnull", False)),
                        fields=["run", "environment"],
                        name="event_decision_of_run",
                    ),
                    models.Index(
                        condition=models.Q(("source__isnull", False)),
                        fields=["environment", "decision", "received_at", "event"],
                        name="event_decision_of_all_sources",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("event", "trigger", "environment"),
                        name="event_decision_one_for_trigger",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("code__isnull", False), ("decision", "refused")),
                            models.Q(
                                ("code__isnull", True),
                                models.Q(("decision", "refused"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="event_decision_refused_has_a_code",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("clause__isnull", True), ("decision", "filtered"), _connector="OR"
                        ),
                        name="event_decision_clause_filtered",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("run__isnull", True),
                            ("decision__in", ("fired", "coalesced")),
                            _connector="OR",
                        ),
                        name="event_decision_has_a_run",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("decision__in", ["fired", "filtered", "coalesced", "refused"])
                        ),
                        name="event_decision_decision",
                    ),
                ],
            },
        ),
        tenant_parent("trigger", "trigger"),
        tenant_parent("eventsource", "event_source"),
        tenant_parent("budget", "budget"),
        tenant_parent("triggerrevision", "trigger_revision"),
        tenant_parent("budgetwindow", "budget_window"),
        tenant_parent("run", "run"),
        tenant_parent("delivery", "delivery"),
        tenant_parent("event", "event"),
        tenant_parent("approval", "approval"),
        migrations.RunSQL(EVENTS, NO_EVENTS),
        migrations.RunSQL(STATISTICS, "DROP STATISTICS run_belongs, run_kinds"),
        migrations.RunSQL(FREE_SPACE, migrations.RunSQL.noop),
        migrations.RunSQL(VACUUM, migrations.RunSQL.noop),
        tenant_key("budget", "trigger_id", "trigger"),
        tenant_key("budget_window", "budget_id", "budget"),
        tenant_key("delivery", "run_id", "run"),
        tenant_key("delivery", "trigger_id", "trigger"),
        tenant_key("delivery_attempt", "delivery_id", "delivery"),
        tenant_key("idempotency_key", "run_id", "run", "DEFERRABLE INITIALLY DEFERRED"),
        tenant_key("idempotency_key", "trigger_id", "trigger"),
        tenant_key("run", "avoided_worker_id", "worker"),
        tenant_key("run", "pool_id", "pool"),
        tenant_key("run", "rerun_of_id", "run", "ON DELETE SET NULL (rerun_of_id)"),
        tenant_key("run", "retry_of_id", "run"),
        tenant_key("run", "revision_id", "trigger_revision"),
        tenant_key("run", "trigger_id", "trigger"),
        tenant_key("run", "worker_id", "worker"),
        tenant_key("run_event_log", "run_id", "run"),
        tenant_key("run_reservation", "run_id", "run", "ON DELETE CASCADE"),
        tenant_key("run_reservation", "window_id", "budget_window"),
        tenant_key("run_result", "run_id", "run"),
        tenant_key("run_text", "run_id", "run"),
        tenant_key("tick", "blocked_by_id", "run", "ON DELETE SET NULL (blocked_by_id)"),
        tenant_key("tick", "run_id", "run", "DEFERRABLE INITIALLY DEFERRED"),
        tenant_key("tick", "trigger_id", "trigger"),
        tenant_key("trigger", "mcp_key_id", "data_key"),
        tenant_key("trigger", "pool_id", "pool"),
        tenant_key("trigger", "revision_id", "trigger_revision", "DEFERRABLE INITIALLY DEFERRED"),
        tenant_key("trigger", "webhook_key_id", "data_key"),
        tenant_key("trigger", "worker_id", "worker"),
        tenant_key("trigger_health", "trigger_id", "trigger"),
        tenant_key("trigger_revision", "trigger_id", "trigger"),
        # Unlike other tenant keys it also compares the URL, so that the headers of a connection go to its server alone.
        migrations.RunSQL(
            "ALTER TABLE trigger ADD CONSTRAINT trigger_connection_in_environment"
            " FOREIGN KEY (environment_id, connection_id, mcp_url)"
            " REFERENCES connection (environment_id, id, mcp_url)",
            "ALTER TABLE trigger DROP CONSTRAINT trigger_connection_in_environment",
        ),
        tenant_key("event_source", "secrets_key_id", "data_key"),
        tenant_key("event_key", "source_id", "event_source"),
        tenant_key("event", "source_id", "event_source"),
        tenant_key("event", "run_id", "run", "ON DELETE CASCADE"),
        tenant_key("event", "replay_of_id", "event", "ON DELETE SET NULL (replay_of_id)"),
        tenant_key("listener", "trigger_id", "trigger"),
        tenant_key("listener", "source_id", "event_source"),
        tenant_key("listener", "upstream_id", "trigger"),
        tenant_key("event_decision", "event_id", "event", "ON DELETE CASCADE"),
        tenant_key("event_decision", "source_id", "event_source"),
        tenant_key("event_decision", "trigger_id", "trigger"),
        tenant_key("event_decision", "run_id", "run", "ON DELETE SET NULL (run_id)"),
        tenant_key("approval", "run_id", "run", "ON DELETE CASCADE"),
        tenant_key("approval", "trigger_id", "trigger"),
    ]
