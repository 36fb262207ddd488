"""Adds the name that a target had, and the indexes by which the audit log is filtered by who acted.

Only entries of people and keys are in the index by type: those of workers and of the system are most of all.
"""

from django.db import migrations, models

FORWARD = """
ALTER TABLE audit_entry ADD COLUMN target_name varchar(255);
CREATE INDEX audit_entry_of_actor ON audit_entry (environment_id, actor_id, created_at, id) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_entry_of_people ON audit_entry (environment_id, actor_type, created_at, id)
    WHERE actor_type IN ('user', 'api_key', 'staff');
"""
BACKWARD = """
DROP INDEX audit_entry_of_people, audit_entry_of_actor;
ALTER TABLE audit_entry DROP COLUMN target_name;
"""


class Migration(migrations.Migration):
    safe_because = {
        "require-concurrent-index-creation": "No release has this table yet.",
    }
    dependencies = [("audit", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="auditentry",
            name="target_name",
            field=models.CharField(max_length=255, null=True),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
