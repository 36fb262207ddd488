"""Makes the table of how far each user and API key has written, which is used if there is a read replica.

No index has the columns that change, so that PostgreSQL updates a row in place.
"""

from django.db import migrations

FORWARD = """
CREATE TABLE recent_write (
    principal_id uuid PRIMARY KEY,
    position bigint NOT NULL,
    written_at timestamptz NOT NULL
) WITH (fillfactor = 70);
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0006_proof_and_mails")]

    operations = [migrations.RunSQL(FORWARD, "DROP TABLE recent_write")]
