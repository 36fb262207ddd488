"""Makes the tables that belong to no app's models: `throttle` (pipedai.api.throttling) and `recent_write`
(pipedai.replica).

`throttle` is UNLOGGED: many requests write it, and a crash may empty it. No index of `recent_write` has the columns
that change, so that PostgreSQL updates a row in place.
"""

from django.db import migrations

FORWARD = """
CREATE UNLOGGED TABLE throttle (
    bucket bytea PRIMARY KEY,
    hits integer NOT NULL,
    window_start timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX throttle_over ON throttle (expires_at);
CREATE TABLE recent_write (
    principal_id uuid PRIMARY KEY,
    position bigint NOT NULL,
    written_at timestamptz NOT NULL
) WITH (fillfactor = 70);
"""


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [migrations.RunSQL(FORWARD, "DROP TABLE throttle, recent_write")]
