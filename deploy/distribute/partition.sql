-- Step 2 of docs/scaling.md, with PostgreSQL alone: partitions run, tick, delivery and the audit log by hash of
-- environment_id. It comes after keys.sql, in the same way. It copies the tables, so it takes as long as a restore of
-- them, and needs room for both. It reads all columns, constraints, indexes and settings from the catalog, so it fits
-- the schema of every release. The last statement says how many partitions a table gets.

CREATE FUNCTION pg_temp.partition_by_environment(tables text[], partitions int) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    name text;
    step record;
    foreign_keys text[];
BEGIN
    -- Foreign keys from and to the tables are made again at the end.
    SELECT array_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)))
    INTO foreign_keys FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0
        AND (conrelid = ANY(tables::regclass[]) OR confrelid = ANY(tables::regclass[]));
    FOR step IN
        SELECT conrelid::regclass AS of, conname FROM pg_constraint
        WHERE contype = 'f' AND conparentid = 0
            AND (conrelid = ANY(tables::regclass[]) OR confrelid = ANY(tables::regclass[]))
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', step.of, step.conname);
    END LOOP;
    FOREACH name IN ARRAY tables LOOP
        PERFORM pg_temp.partition_one(name, partitions);
    END LOOP;
    FOREACH name IN ARRAY coalesce(foreign_keys, '{}') LOOP
        EXECUTE name;
    END LOOP;
END $body$;

CREATE FUNCTION pg_temp.partition_one(name text, partitions int) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    whole text := name || '_whole';
    made text[];
    said text;
    settings text;
BEGIN
    SELECT array_to_string(reloptions, ', ') INTO settings FROM pg_class WHERE oid = name::regclass;
    SELECT array_agg(given ORDER BY is_constraint DESC) INTO made FROM (
        SELECT true AS is_constraint,
            format('ALTER TABLE %I ADD CONSTRAINT %I %s', name, conname, pg_get_constraintdef(oid)) AS given
        FROM pg_constraint WHERE conrelid = name::regclass AND contype IN ('p', 'u')
        UNION ALL
        SELECT false, pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indrelid = name::regclass AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)) found;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', name, whole);
    EXECUTE format(
        'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE)'
        ' PARTITION BY HASH (environment_id)', name, whole);
    FOR n IN 0 .. partitions - 1 LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s) %s',
            name || '_' || n, name, partitions, n, 'WITH (' || settings || ')');
    END LOOP;
    EXECUTE format('INSERT INTO %I SELECT * FROM %I', name, whole);
    EXECUTE format('DROP TABLE %I', whole);
    FOREACH said IN ARRAY made LOOP
        EXECUTE said;
    END LOOP;
    EXECUTE format('ANALYZE %I', name);
END $body$;

SELECT pg_temp.partition_by_environment('{run,tick,delivery}', 8);

-- The audit log stays partitioned by month, and each month is partitioned by hash. The months that the scheduler adds
-- later are whole: partition them by calling this function again.
CREATE FUNCTION pg_temp.partition_months(partitions int) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    month record;
    whole text;
    leaf text;
BEGIN
    FOR month IN
        SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'audit_entry'::regclass AND c.relkind = 'r'
    LOOP
        whole := month.name || '_whole';
        EXECUTE format('ALTER TABLE audit_entry DETACH PARTITION %I', month.name);
        EXECUTE format('ALTER TABLE %I RENAME TO %I', month.name, whole);
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF audit_entry %s PARTITION BY HASH (environment_id)', month.name, month.bounds);
        FOR n IN 0 .. partitions - 1 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
                month.name || '_' || n, month.name, partitions, n);
        END LOOP;
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', month.name, whole);
        EXECUTE format('DROP TABLE %I', whole);
        -- The rule that the log is only appended to stands on each table of a partition, too.
        FOR leaf IN SELECT relid::text FROM pg_partition_tree(month.name::regclass) LOOP
            EXECUTE format(
                'CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I'
                ' FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()', leaf);
            EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER audit_append_only', leaf);
        END LOOP;
    END LOOP;
END $body$;

SELECT pg_temp.partition_months(8);
