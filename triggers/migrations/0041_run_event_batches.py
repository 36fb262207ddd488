"""Makes the table of run events, which is partitioned by day so that old days can be dropped as whole tables.

`run_event_add_partition(day)` makes the partition of a day. The scheduler calls it ahead of time. The rows of a day
without a partition go to the default partition, so that no event is refused because a partition is missing.
"""

import django.contrib.postgres.fields
from django.db import migrations, models

FORWARD = """
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

BACKWARD = """
DROP TABLE run_event_batch;
DROP FUNCTION run_event_add_partition(date);
"""


class Migration(migrations.Migration):
    dependencies = [("triggers", "0040_run_events")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
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
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField()),
                ),
            ],
            options={"db_table": "run_event_batch", "managed": False},
        ),
    ]
