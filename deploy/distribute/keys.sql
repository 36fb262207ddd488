-- Step 1 of docs/scaling.md: leaves no key of the four large tables without environment_id, as every engine demands that
-- distributes or partitions by this column. Run it as the owner of the tables, in a maintenance window, as
-- psql --single-transaction --set=ON_ERROR_STOP=1 --file=keys.sql "$DATABASE_URL"

-- Ids are UUIDv7, which are unique without a constraint. Lookups by an id alone keep an index, which is not unique.
ALTER TABLE run DROP CONSTRAINT run_pkey;
ALTER TABLE delivery DROP CONSTRAINT delivery_pkey;
ALTER TABLE tick DROP CONSTRAINT tick_pkey;
CREATE INDEX run_by_id ON run (id);
CREATE INDEX delivery_by_id ON delivery (id);
CREATE INDEX tick_by_id ON tick (id);
ALTER TABLE tick ADD PRIMARY KEY (environment_id, id);
-- run and delivery have UNIQUE (environment_id, id) already, which their foreign keys refer to.

-- What happens outside environments, such as a login, is audited with environment_id NULL. So this key can't be primary.
-- It must not be NULLS NOT DISTINCT either: ids are unique.
ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_pkey;
ALTER TABLE audit_entry ADD CONSTRAINT audit_entry_key UNIQUE (environment_id, created_at, id);
