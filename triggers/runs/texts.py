"""The SQL statements that write what lies beside a run: its payload, results and errors, and the event of its end."""

from pipedai.sql import NOW
from triggers.runs.outcome import MAX_LISTED_CALLS

READ_PAYLOAD = "SELECT payload FROM run_text WHERE run_id = %(run_id)s"

REPLACE_PAYLOAD = "UPDATE run_text SET payload = %(payload)s WHERE run_id = %(run_id)s"

COPY_PAYLOADS = """
INSERT INTO run_text (run_id, environment_id, payload)
SELECT r.id, x.environment_id, x.payload FROM run r JOIN run_text x ON x.run_id = r.retry_of_id
WHERE r.id = ANY(%(ids)s) AND r.environment_id = ANY(%(environment_ids)s) AND x.payload IS NOT NULL
"""

KEEP_LATE_RESULT = f"""
INSERT INTO run_text (run_id, environment_id, late_result)
SELECT id, environment_id,
    (jsonb_build_object('receivedAt', to_char({NOW} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
     || %(late_result)s::jsonb)::json
FROM run WHERE id = %(run_id)s
ON CONFLICT (run_id) DO UPDATE SET late_result = excluded.late_result
"""

# Only a run of several spells has a row already. The calls of its last spell follow those of the earlier ones.
KEEP_RESULT = f"""
INSERT INTO run_result AS kept (run_id, environment_id, output, tool_calls)
SELECT id, environment_id, %(output)s::json, %(tool_call_list)s::json FROM run WHERE id = %(run_id)s
ON CONFLICT (run_id) DO UPDATE SET output = excluded.output, tool_calls = (
    SELECT json_agg(call ORDER BY spell, n) FROM (
        SELECT 1 AS spell, n, call FROM json_array_elements(kept.tool_calls) WITH ORDINALITY AS a (call, n)
        UNION ALL
        SELECT 2, n, call FROM json_array_elements(excluded.tool_calls) WITH ORDINALITY AS a (call, n)
        ORDER BY 1, 2 LIMIT {MAX_LISTED_CALLS}) calls)
"""

KEEP_ERRORS = """
INSERT INTO run_text (run_id, environment_id, error_message)
SELECT * FROM unnest(%(run_ids)s::uuid[], %(environment_ids)s::uuid[], %(messages)s::text[])
ON CONFLICT (run_id) DO UPDATE SET error_message = excluded.error_message
"""

# Keeps the final ends of runs as events for those triggers that listen. Later ends of a run, by late results, are none.
KEEP_ENDS = """
INSERT INTO event (id, environment_id, run_id, received_at)
SELECT n.id, r.environment_id, r.id, r.ended_at FROM unnest(%(ids)s::uuid[], %(run_ids)s::uuid[]) AS n (id, run_id)
JOIN run r ON r.id = n.run_id
WHERE r.status IN ('succeeded', 'failed', 'timed_out') AND NOT r.retried
ON CONFLICT (run_id, environment_id) WHERE run_id IS NOT NULL DO NOTHING
"""
