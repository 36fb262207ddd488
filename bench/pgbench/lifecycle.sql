-- One lifecycle as bare SQL: what the database alone must do for it, on the product's own tables,
-- constraints and indexes, with its audit rows and its transactions, but without HTTP, tokens, wake-ups
-- and encryption. It is the yardstick, so it does not change when the product's statements get better.
-- Run it with -M prepared after setup.sql. A step that finds no row fails, since \gset needs exactly one.

-- create
BEGIN;
INSERT INTO run AS r (
    id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries, timeout_seconds,
    queued_at, available_at, model)
SELECT uuidv7(), t.environment_id, t.id, t.revision_id, t.worker_id, 'queued', 'api', 1, t.max_retries,
    t.timeout_seconds, statement_timestamp(), statement_timestamp(), v.model
FROM bench_client b
JOIN trigger t ON t.id = b.trigger_id AND t.enabled AND t.deleted_at IS NULL
JOIN trigger_revision v ON v.id = t.revision_id
WHERE b.n = :client_id
FOR SHARE OF t
RETURNING r.id AS run_id, r.environment_id, r.trigger_id, r.worker_id \gset
INSERT INTO audit_entry (
    id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id)
VALUES (
    uuidv7(), :environment_id, 'run.created', 'api_key', :trigger_id, 'run', :run_id,
    jsonb_build_object('triggerId', :trigger_id::text, 'status', 'queued', 'source', 'api'), '127.0.0.1', 'bench');
COMMIT;

-- poll
SELECT r.id AS run_id, t.name, v.prompt, v.model, t.mcp_url, t.mcp_headers, k.wrapped, r.timeout_seconds, r.attempt,
    r.queued_at
FROM run r
JOIN trigger t ON t.id = r.trigger_id
JOIN trigger_revision v ON v.id = r.revision_id
LEFT JOIN data_key k ON k.id = t.mcp_key_id
LEFT JOIN run_text x ON x.run_id = r.id
WHERE r.worker_id = :worker_id AND r.status = 'queued' AND r.available_at <= statement_timestamp()
ORDER BY r.available_at, r.id
LIMIT greatest(0, 1 - (SELECT count(*) FROM run h WHERE h.worker_id = :worker_id AND h.slot IS NOT NULL)) \gset
INSERT INTO run_text (run_id, environment_id, mcp_url) VALUES (:run_id, :environment_id, :mcp_url);

-- claim
BEGIN;
SELECT max_concurrency AS capacity FROM worker
WHERE id = :worker_id AND disabled_at IS NULL FOR NO KEY UPDATE \gset
UPDATE run r
SET status = 'claimed', slot = free.slot, claim_id = 'bench', claimed_at = statement_timestamp(),
    lease_expires_at = statement_timestamp() + interval '180 seconds',
    deadline_at = statement_timestamp() + (r.timeout_seconds + 60) * interval '1 second'
FROM (
    SELECT min(s) AS slot FROM generate_series(1, :capacity::int) s
    WHERE NOT EXISTS (SELECT 1 FROM run h WHERE h.worker_id = :worker_id AND h.slot = s)) free
WHERE r.id = :run_id AND r.worker_id = :worker_id AND r.status = 'queued'
    AND r.available_at <= statement_timestamp() AND free.slot IS NOT NULL
RETURNING r.status \gset
INSERT INTO audit_entry (
    id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id)
VALUES (
    uuidv7(), :environment_id, 'run.claimed', 'worker', :worker_id, 'run', :run_id,
    jsonb_build_object('triggerId', :trigger_id::text, 'status', 'claimed'), '127.0.0.1', 'bench');
COMMIT;

-- start
BEGIN;
UPDATE run r
SET status = 'running', started_at = statement_timestamp(),
    lease_expires_at = statement_timestamp() + interval '180 seconds',
    deadline_at = statement_timestamp() + (r.timeout_seconds + 60) * interval '1 second'
WHERE r.id = :run_id AND r.worker_id = :worker_id AND r.status = 'claimed'
RETURNING r.status \gset
INSERT INTO audit_entry (
    id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id)
VALUES (
    uuidv7(), :environment_id, 'run.started', 'worker', :worker_id, 'run', :run_id,
    jsonb_build_object('triggerId', :trigger_id::text, 'status', 'running'), '127.0.0.1', 'bench');
COMMIT;

-- heartbeat
UPDATE run r SET lease_expires_at = statement_timestamp() + interval '180 seconds'
WHERE r.id = :run_id AND r.worker_id = :worker_id AND r.slot IS NOT NULL
RETURNING r.status \gset

-- complete
BEGIN;
UPDATE run r
SET ended_at = statement_timestamp(), ended_by = 'worker', slot = NULL, lease_expires_at = NULL, deadline_at = NULL,
    status = 'succeeded', fault_class = 'none', exit_code = 0, short_message = 'Done.', model = 'sonnet',
    input_tokens = 5120, output_tokens = 640, cache_read_tokens = 2048, cache_creation_tokens = 512,
    cost_usd = 0.0215, num_turns = 4, session_id = '0e9d7c52-7c3e-4f0a-9a55-0b8f3c1f2d11'
WHERE r.id = :run_id AND r.worker_id = :worker_id AND r.slot IS NOT NULL
RETURNING r.status \gset
INSERT INTO audit_entry (
    id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id)
VALUES (
    uuidv7(), :environment_id, 'run.completed', 'worker', :worker_id, 'run', :run_id,
    jsonb_build_object('triggerId', :trigger_id::text, 'status', 'succeeded', 'faultClass', 'none'),
    '127.0.0.1', 'bench');
COMMIT;
