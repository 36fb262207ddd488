-- Gives each pgbench client one of the HTTP clients' triggers, and with it the trigger's worker.
CREATE TABLE IF NOT EXISTS bench_client (n integer PRIMARY KEY, trigger_id uuid NOT NULL);
TRUNCATE bench_client;
INSERT INTO bench_client SELECT row_number() OVER (ORDER BY id) - 1, id FROM trigger;
