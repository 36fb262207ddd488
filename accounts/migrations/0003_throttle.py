"""Makes the table of the throttles' counters. It is UNLOGGED: many requests write it, and a crash may empty it."""

from django.db import migrations

FORWARD = """
CREATE UNLOGGED TABLE throttle (
    bucket bytea PRIMARY KEY,
    hits integer NOT NULL,
    window_start timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX throttle_over ON throttle (expires_at);
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_session_address_digest")]

    operations = [migrations.RunSQL(FORWARD, "DROP TABLE throttle")]
