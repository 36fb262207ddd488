"""Makes the database check that an environment keeps an owner, as the services do (SPEC §4).

The check is deferred, so that one transaction can hand ownership over. It locks the environment's row, so that two
transactions that each remove one of two owners can't both pass.
"""

from django.db import migrations

FORWARD = """
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

BACKWARD = """
DROP TRIGGER membership_keeps_an_owner ON membership;
DROP FUNCTION membership_keeps_an_owner();
"""


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0001_initial")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
