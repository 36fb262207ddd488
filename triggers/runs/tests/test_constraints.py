"""The database itself refuses wrong states, whichever code writes them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError, transaction

from notices.channels import services
from notices.models import NoticeAttempt
from pipedai.events import SYSTEM, Actor
from pipedai.ids import new_id
from pipedai.sql import execute, fetch_all
from testing.world.budgets import add_budget
from testing.world.cases import cases
from testing.world.cast import Cast, issue_enrollment, register
from testing.world.channels import CHANNEL_SECRET, add_channel, asked_token
from testing.world.connections import CONNECTION_URL, add_connection, add_oauth_connection
from testing.world.events import add_every_row, add_source
from testing.world.incidents import open_incident
from testing.world.mails import invite_for_test
from testing.world.pools import add_pool
from testing.world.run_states import STATES
from testing.world.runs import NOON, WEBHOOK_URL, Runs, allow
from triggers.models import BudgetWindow, Delivery, DeliveryAttempt, Run, RunEventLog, Tick, Trigger
from triggers.runs.queueing import rerun_run, run_trigger
from triggers.states import TERMINAL, Decision, Source, Status
from workers.enrollment.issuing import begin_pairing
from workers.models import WorkerEvent, WorkerSilence
from workspaces.api_keys import mint_registration_token
from workspaces.models import ApiKey, Authorization, DataKey, Revocation, RevocationAttempt

HELD_STATES = ("claimed with mine", "running")
ENDED_STATES = ("succeeded", "failed, client", "canceled in the queue", "lost, no retry", "overdue")

# (constraint, state of the run, assignment that the constraint must refuse)
WRONG_RUNS = [
    *[
        ("run_held", state, f"{column} = NULL")
        for state in HELD_STATES
        for column in ("slot", "lease_expires_at", "deadline_at", "worker_id")
    ],
    *[
        ("run_held", state, change)
        for state in ("queued, due", *ENDED_STATES)
        for change in (
            "slot = 1",
            "lease_expires_at = now()",
            "deadline_at = now()",
            "slot = 1, lease_expires_at = now(), deadline_at = now()",
        )
    ],
    *[
        ("run_ended", state, change)
        for state in ENDED_STATES
        for change in (
            "ended_at = NULL",
            "ended_by = NULL",
            "ended_by = 'nobody'",
            "fault_class = NULL",
            "fault_class = 'mine'",
        )
    ],
    ("run_ended", "succeeded", "fault_class = 'client'"),
    ("run_ended", "canceled in the queue", "fault_class = 'infra'"),
    ("run_ended", "failed, client", "fault_class = 'none'"),
    ("run_ended", "overdue", "fault_class = 'none'"),
    *[
        ("run_ended", state, change)
        for state in ("queued, due", *HELD_STATES)
        for change in ("ended_at = now()", "ended_by = 'worker'", "fault_class = 'none'")
    ],
    ("run_times_of_state", "queued, due", "claimed_at = now()"),
    ("run_times_of_state", "claimed with mine", "claimed_at = NULL"),
    ("run_times_of_state", "claimed with mine", "started_at = now()"),
    ("run_times_of_state", "running", "started_at = NULL"),
    ("run_times_of_state", "succeeded", "claimed_at = NULL, started_at = NULL"),
    ("run_times_of_state", "overdue", "claimed_at = NULL, started_at = NULL"),
    ("run_started_was_claimed", "running", "claimed_at = NULL"),
    ("run_started_was_claimed", "succeeded", "claimed_at = NULL"),
    ("run_started_was_claimed", "canceled in the queue", "started_at = now()"),
    ("run_retry_has_an_original", "queued, due", "attempt = 2"),
    ("run_retry_has_an_original", "queued, due", "attempt = 0"),
    ("run_retry_has_an_original", "queued, due", "source = 'retry'"),
    ("run_retry_has_an_original", "queued, due", "retry_of_id = id"),
    ("run_retry_has_an_original", "queued, not due", "retry_of_id = NULL"),
    ("run_retry_has_an_original", "queued, not due", "attempt = 1"),
    ("run_retry_has_an_original", "queued, not due", "source = 'manual'"),
    ("run_scheduled_has_a_tick", "queued, due", "source = 'schedule'"),
    ("run_source", "queued, due", "source = 'magic'"),
    ("run_cost", "succeeded", "cost_usd = -0.000001"),
    ("run_in_trigger_slot_is_held", "queued, due", "trigger_slot = 1"),
    ("run_in_trigger_slot_is_held", "running", "trigger_slot = 0"),
    ("run_pool_from", "queued, due", "pool_from = now()"),
    ("run_pool_from", "queued, due", "avoided_worker_id = worker_id"),
    ("run_resuming_has_a_session", "queued, due", "resume_until = now()"),
    ("run_resuming_has_a_session", "queued, not due", "had_effects = true"),
    ("run_resuming_has_a_session", "queued, in a session", "worker_id = NULL"),
    ("run_resuming_has_a_session", "queued, due", "had_effects = true"),
    ("run_waiting", "waiting", "session_id = NULL"),
    ("run_waiting", "waiting", "claim_id = 'mine'"),
    ("run_waiting", "waiting", "spells = 0, active_ms = NULL, resume_until = NULL"),
    ("run_times_of_state", "waiting", "claimed_at = NULL, started_at = NULL"),
    ("run_spells", "running, decided", "spells = 20"),
    ("run_spells", "running, decided", "active_ms = NULL"),
    ("run_spells", "running", "active_ms = 1"),
    ("run_spells", "running", "earlier_calls = ARRAY[1, 0, 0]"),
    ("run_denials", "running", "denials_total = 1"),
    ("run_look", "running", "look_digest = 'x'"),
    ("run_look", "running", "look_digest = 'x', looked_at = now()"),
    ("run_look_only", "running", "look_only = true"),
    ("run_nothing_new", "succeeded", "nothing_new = true"),
    ("run_nothing_new", "running", "nothing_new = true, looks = true, cost_usd = 0"),
    ("run_denials", "running", "denials_total = -1, denied_tools = '{}'"),
    ("run_tool_calls", "running", "tool_calls_total = 1"),
    ("run_tool_calls", "running", "tool_calls_effects = 0, tool_calls_unknown = 0"),
    *[
        (
            "run_tool_calls",
            "running",
            f"tool_calls_total = {total}, tool_calls_effects = {effects}, tool_calls_unknown = {unknown}",
        )
        for total, effects, unknown in (
            (1, 2, 0),
            (1, 0, 2),
            (1, -1, 0),
            (1, 0, -1),
            (-1, -1, -1),
            ("NULL", 0, 0),
            (1, "NULL", 0),
        )
    ],
]

# What a connection loses with its token.
_NO_TOKEN = "headers = NULL, headers_key_id = NULL, access_expires_at = NULL, fresh_until = NULL"

# (constraint, statement); the parameters are the ids of the rows that the fixture `there` makes.
WRONG_ROWS = [
    ("refused_request_reason", "UPDATE refused_request SET reason = 'other'"),
    ("run_one_in_slot", "UPDATE run SET slot = 1 WHERE id = %(second_held)s"),
    (
        "run_one_in_trigger_slot",
        "UPDATE run SET trigger_slot = 1 WHERE id IN (%(first_held)s, %(second_held)s)",
    ),
    (
        "run_one_for_tick",
        (
            "UPDATE run SET source = 'schedule', scheduled_for = '2026-05-04T12:00Z'"
            " WHERE id IN (%(first_held)s, %(second_held)s)"
        ),
    ),
    ("run_rerun_was_requested", "UPDATE run SET rerun_of_id = %(lost)s WHERE source = 'retry'"),
    (
        "tick_blocked_was_skipped",
        "UPDATE tick SET blocked_by_id = %(lost)s WHERE decision = 'fired'",
    ),
    ("run_event_log_counts", "UPDATE run_event_log SET stored = next_seq"),
    ("run_one_retry", "UPDATE run SET retry_of_id = %(lost)s WHERE id = %(other_retry)s"),
    ("approval_closed", "UPDATE approval SET status = 'expired', closed_at = NULL"),
    ("approval_closed", "UPDATE approval SET status = 'odd', decided_by = NULL, closed_at = now()"),
    (
        "approval_decided_by_somebody",
        "UPDATE approval SET decided_by = NULL WHERE decided_by IS NOT NULL",
    ),
    ("approval_decided_by_somebody", "UPDATE approval SET reason = 'x' WHERE status = 'pending'"),
    (
        "approval_one_pending",
        "UPDATE approval SET status = 'pending', closed_at = NULL, decided_by = NULL",
    ),
    ("approval_spent_was_approved", "UPDATE approval SET spent_at = now()"),
    ("approval_role", "UPDATE approval SET role = 'viewer'"),
    ("delivery_pending_is_due", "UPDATE delivery SET next_attempt_at = NULL"),
    ("delivery_pending_is_due", "UPDATE delivery SET status = 'dead'"),
    (
        "delivery_pending_is_due",
        "UPDATE delivery SET status = 'lost', next_attempt_at = NULL",
    ),
    ("delivery_delivered_at", "UPDATE delivery SET delivered_at = now()"),
    (
        "delivery_delivered_at",
        "UPDATE delivery SET status = 'delivered', next_attempt_at = NULL",
    ),
    (
        "tick_one_decision",
        "UPDATE tick SET tick_at = '2026-05-04T12:00Z', last_tick_at = '2026-05-04T12:00Z'",
    ),
    ("delivery_attempt_has_an_end", "UPDATE delivery_attempt SET status_code = NULL"),
    (
        "tick_decision",
        "UPDATE tick SET decision = 'later', blocked_by_id = NULL WHERE run_id IS NULL",
    ),
    ("tick_fired_has_a_run", "UPDATE tick SET run_id = NULL WHERE decision = 'fired'"),
    ("tick_fired_has_a_run", "UPDATE tick SET run_id = %(lost)s WHERE decision <> 'fired'"),
    ("tick_missed_is_counted", "UPDATE tick SET missed_count = 1"),
    ("tick_missed_is_counted", "UPDATE tick SET last_tick_at = now()"),
    ("trigger_start_deadline_seconds", "UPDATE trigger SET start_deadline_seconds = 59"),
    ("trigger_max_concurrent_runs", "UPDATE trigger SET max_concurrent_runs = 101"),
    ("trigger_prefer_seconds", "UPDATE trigger SET prefer_seconds = 601"),
    ("trigger_revision_carry", "UPDATE trigger_revision SET carry = 'odd'"),
    ("trigger_retry_mode", "UPDATE trigger SET retry_mode = 'odd'"),
    ("trigger_record_events", "UPDATE trigger SET record_events = 'odd'"),
    ("environment_pause_has_a_time", "UPDATE environment SET pause_reason = 'x'"),
    ("pool_name_free_in_environment", "UPDATE pool SET name = 'linux'"),
    (
        "api_key_only_wrk_joins_pools",
        "UPDATE api_key SET pool_ids = ARRAY[%(pool)s::uuid] WHERE kind = 'pwk'",
    ),
    ("trigger_alert_after_failures", "UPDATE trigger SET alert_after_failures = 0"),
    ("trigger_success_deadline_seconds", "UPDATE trigger SET success_deadline_seconds = 59"),
    (
        "trigger_health_failing_has_failures",
        "UPDATE trigger_health SET is_failing = true, failures = 0",
    ),
    ("incident_one_open", "UPDATE incident SET subject_id = %(lost)s"),
    ("incident_kind", "UPDATE incident SET kind = 'odd'"),
    ("incident_subject_type", "UPDATE incident SET subject_type = 'odd'"),
    (
        "incident_closed_after_opening",
        "UPDATE incident SET closed_at = opened_at - interval '1 second', remind_at = NULL",
    ),
    ("incident_acknowledged_has_a_time", "UPDATE incident SET acknowledged_by = %(owner)s"),
    ("incident_reminded_is_open", "UPDATE incident SET closed_at = opened_at"),
    ("trigger_max_cost_usd", "UPDATE trigger SET max_cost_usd = 0"),
    ("budget_period", "UPDATE budget SET period = 'week'"),
    ("budget_when_reached", "UPDATE budget SET when_reached = 'odd'"),
    ("budget_limit_usd", "UPDATE budget SET limit_usd = -1"),
    ("budget_reserve_usd", "UPDATE budget SET reserve_usd = -1"),
    ("budget_window_has_a_length", "UPDATE budget_window SET ends_at = starts_at"),
    ("budget_window_sums", "UPDATE budget_window SET notional_spent_usd = spent_usd + 1"),
    ("budget_window_sums", "UPDATE budget_window SET notional_reserved_usd = -1"),
    (
        "budget_window_once",
        "UPDATE budget_window SET starts_at = '2026-05-04T00:00Z', ends_at = '2026-05-05T00:00Z'",
    ),
    ("run_reservation_amounts", "UPDATE run_reservation SET amount_usd = -1"),
    ("run_reservation_settled", "UPDATE run_reservation SET cost_usd = 1"),
    ("run_reservation_settled", "UPDATE run_reservation SET is_estimate = true"),
    ("trigger_max_retries", "UPDATE trigger SET max_retries = 11"),
    ("trigger_timeout_seconds", "UPDATE trigger SET timeout_seconds = 9"),
    ("trigger_timeout_seconds", "UPDATE trigger SET timeout_seconds = 86401"),
    ("trigger_overlap_policy", "UPDATE trigger SET overlap_policy = 'drop'"),
    ("trigger_mcp_headers_have_a_key", "UPDATE trigger SET mcp_headers = 'x'"),
    ("trigger_mcp_headers_have_a_key", "UPDATE trigger SET mcp_key_id = %(data_key)s"),
    ("trigger_webhook_secret_has_a_key", "UPDATE trigger SET webhook_secret = 'x'"),
    ("trigger_webhook_secret_has_a_key", "UPDATE trigger SET webhook_key_id = %(data_key)s"),
    ("trigger_next_run_at_is_true", "UPDATE trigger SET next_run_at = now()"),
    ("trigger_next_run_at_is_true", "UPDATE trigger SET schedule = '* * * * *'"),
    (
        "trigger_next_run_at_is_true",
        "UPDATE trigger SET schedule = '* * * * *', next_run_at = now(), enabled = false",
    ),
    (
        "trigger_next_run_at_is_true",
        "UPDATE trigger SET schedule = '* * * * *', next_run_at = now(), deleted_at = now()",
    ),
    (
        "trigger_comes_due_once",
        "UPDATE trigger SET run_once_at = now(), next_run_at = now() + interval '1 hour'",
    ),
    ("worker_max_concurrency", "UPDATE worker SET max_concurrency = 0"),
    ("worker_max_concurrency", "UPDATE worker SET max_concurrency = 1001"),
    ("worker_auth_mode", "UPDATE worker SET auth_mode = 'trust'"),
    ("worker_deleted_has_no_token", "UPDATE worker SET deleted_at = now()"),
    (
        "worker_hostname_in_environment",
        "UPDATE worker SET hostname = 'HOST-1' WHERE id = %(second_worker)s",
    ),
    (
        "worker_token_digest_key",
        "UPDATE worker SET token_digest = (SELECT token_digest FROM worker WHERE id = %(worker)s)",
    ),
    ("api_key_role_of_kind", "UPDATE api_key SET role = 'owner' WHERE kind = 'pwk'"),
    ("api_key_role_of_kind", "UPDATE api_key SET role = 'root' WHERE kind = 'pwk'"),
    ("api_key_role_of_kind", "UPDATE api_key SET role = NULL WHERE kind = 'pwk'"),
    ("api_key_role_of_kind", "UPDATE api_key SET role = 'viewer' WHERE kind = 'wrk'"),
    ("api_key_role_of_kind", "UPDATE api_key SET kind = 'xyz' WHERE kind = 'pwk'"),
    (
        "api_key_only_wrk_is_consumed",
        "UPDATE api_key SET consumed_at = now(), consumed_by = %(worker)s WHERE kind = 'pwk'",
    ),
    (
        "api_key_consumed_by_somebody",
        "UPDATE api_key SET consumed_at = NULL WHERE consumed_by IS NOT NULL",
    ),
    (
        "api_key_consumed_by_somebody",
        "UPDATE api_key SET consumed_by = NULL WHERE consumed_by IS NOT NULL",
    ),
    ("api_key_token_digest_key", "UPDATE api_key SET token_digest = 'x'"),
    (
        "api_key_only_wrk_is_minted",
        (
            "UPDATE api_key SET parent_id = (SELECT id FROM api_key WHERE kind = 'hos' LIMIT 1)"
            " WHERE kind = 'pwk'"
        ),
    ),
    ("api_key_role_of_kind", "UPDATE api_key SET role = 'admin' WHERE kind = 'hos'"),
    ("api_key_login_expires", "UPDATE api_key SET is_login = true, expires_at = NULL"),
    (
        "api_key_login_expires",
        "UPDATE api_key SET is_login = true, expires_at = now() WHERE kind = 'wrk'",
    ),
    *(
        (f"{table}_has_own_key", f"UPDATE {table} SET key = 'mine'")
        for table in ("budget", "channel", "connection", "event_source", "pool", "trigger")
    ),
    ("enrollment_role_of_key", "UPDATE enrollment SET role = 'operator'"),
    (
        "enrollment_role_of_key",
        (
            "UPDATE enrollment SET kind = 'key', approved_at = now(), environment_id = %(environment)s"
            " WHERE kind = 'device'"
        ),
    ),
    ("enrollment_auth_mode", "UPDATE enrollment SET auth_mode = 'mine'"),
    ("enrollment_kind", "UPDATE enrollment SET kind = 'mine'"),
    (
        "enrollment_only_code_joins_pools",
        "UPDATE enrollment SET pool_ids = ARRAY[%(pool)s::uuid] WHERE kind = 'device'",
    ),
    (
        "enrollment_kind",
        "UPDATE enrollment SET approved_at = NULL WHERE kind = 'code' AND consumed_at IS NULL",
    ),
    ("enrollment_kind", "UPDATE enrollment SET user_code_digest = 'x' WHERE kind = 'code'"),
    ("enrollment_kind", "UPDATE enrollment SET user_code_digest = NULL WHERE kind = 'device'"),
    (
        "enrollment_approved_for_an_environment",
        "UPDATE enrollment SET approved_at = now() WHERE kind = 'device'",
    ),
    *(
        ("enrollment_consumed_once_approved", f"UPDATE enrollment SET {change}")
        for change in (
            "worker_id = NULL WHERE consumed_at IS NOT NULL",
            "consumed_at = NULL WHERE consumed_at IS NOT NULL",
            "revoked_at = now() WHERE consumed_at IS NOT NULL",
            "consumed_at = now(), worker_id = %(worker)s WHERE kind = 'device'",
        )
    ),
    ("enrollment_code_digest_key", "UPDATE enrollment SET code_digest = 'x'"),
    (
        "enrollment_user_code_digest_key",
        "UPDATE enrollment SET user_code_digest = 'x' WHERE kind = 'device'",
    ),
    (
        "worker_event_one_silence",
        (
            "INSERT INTO worker_event (environment_id, worker_id, type, at, data)"
            " SELECT environment_id, worker_id, type, at, data FROM worker_event"
        ),
    ),
    (
        "data_key_one_in_use",
        (
            "INSERT INTO data_key (id, wrapped, master_key_id, environment_id)"
            " SELECT gen_random_uuid(), wrapped, master_key_id, environment_id FROM data_key WHERE id = %(data_key)s"
        ),
    ),
    *(
        (
            "data_key_rotation_one_under_way",
            (
                "INSERT INTO data_key_rotation (id, environment_id)"
                f" VALUES (gen_random_uuid(), {environment}), (gen_random_uuid(), {environment})"
            ),
        )
        for environment in ("NULL", "%(environment)s")
    ),
    ("data_key_in_use_stays", "DELETE FROM data_key WHERE id = %(data_key)s"),
    (
        "environment_name_free_in_workspace",
        (
            "INSERT INTO environment (id, name, workspace_id) SELECT gen_random_uuid(), name, workspace_id"
            " FROM environment WHERE id = %(environment)s"
        ),
    ),
    ("membership_role", "UPDATE membership SET role = 'king' WHERE role = 'viewer'"),
    (
        "membership_once",
        "UPDATE membership SET user_id = %(owner)s WHERE environment_id = %(environment)s",
    ),
    ("invitation_role", "UPDATE invitation SET role = 'king'"),
    ("invitation_one_open", "UPDATE invitation SET email = 'new@example.com'"),
    (
        "invitation_accepted_or_revoked",
        "UPDATE invitation SET accepted_at = now(), revoked_at = now()",
    ),
    (
        "invitation_mail_id_key",
        "UPDATE invitation SET mail_id = (SELECT mail_id FROM invitation LIMIT 1)",
    ),
    ("connection_grant", "UPDATE connection SET grant_type = 'magic'"),
    ("event_source_scheme", "UPDATE event_source SET scheme = 'odd'"),
    ("event_source_has_secrets", "UPDATE event_source SET secrets = NULL"),
    ("event_source_has_secrets", "UPDATE event_source SET deleted_at = now()"),
    ("event_source_hmac", "UPDATE event_source SET scheme = 'hmac'"),
    ("event_source_hmac", "UPDATE event_source SET hmac = '{}'"),
    (
        "event_one_of_run",
        "UPDATE event SET source_id = NULL, body = NULL, replay_of_id = NULL, run_id = %(lost)s",
    ),
    ("event_of_source_or_run", "UPDATE event SET body = NULL WHERE source_id IS NOT NULL"),
    ("event_of_source_or_run", "UPDATE event SET requested_by = id WHERE run_id IS NOT NULL"),
    ("event_of_source_or_run", "UPDATE event SET run_id = %(lost)s WHERE source_id IS NOT NULL"),
    ("event_of_source_or_run", "UPDATE event SET duplicates = 1 WHERE run_id IS NOT NULL"),
    ("listener_one_in_position", "UPDATE listener SET position = 5"),
    ("listener_position", "UPDATE listener SET position = 10 WHERE position = 0"),
    (
        "listener_to_source_or_trigger",
        "UPDATE listener SET outcome = 'any' WHERE source_id IS NOT NULL",
    ),
    ("listener_to_source_or_trigger", "UPDATE listener SET outcome = 'odd' WHERE position = 1"),
    ("listener_to_source_or_trigger", "UPDATE listener SET types = '{}' WHERE position = 1"),
    ("listener_not_to_itself", "UPDATE listener SET upstream_id = trigger_id WHERE position = 1"),
    (
        "event_decision_one_for_trigger",
        "UPDATE event_decision SET trigger_id = (SELECT trigger_id FROM listener LIMIT 1)",
    ),
    ("event_decision_refused_has_a_code", "UPDATE event_decision SET code = 'x'"),
    ("event_decision_refused_has_a_code", "UPDATE event_decision SET code = NULL"),
    ("event_decision_clause_filtered", "UPDATE event_decision SET clause = '{}'"),
    ("event_decision_has_a_run", "UPDATE event_decision SET run_id = %(lost)s"),
    (
        "event_decision_decision",
        "UPDATE event_decision SET decision = 'odd', run_id = NULL, code = NULL",
    ),
    (
        "run_one_to_join",
        (
            "UPDATE run SET source = 'event', event_id = id, coalesce_key = 'x', rerun_of_id = NULL"
            " WHERE status = 'queued' AND attempt = 1"
        ),
    ),
    ("run_event", "UPDATE run SET source = 'event' WHERE id = %(first_held)s"),
    (
        "run_event",
        "UPDATE run SET source = 'schedule', scheduled_for = now(), event_id = id WHERE id = %(first_held)s",
    ),
    ("run_chain_depth", "UPDATE run SET source = 'chain', event_id = id WHERE id = %(first_held)s"),
    (
        "run_chain_depth",
        "UPDATE run SET source = 'chain', event_id = id, chain_depth = 9 WHERE id = %(first_held)s",
    ),
    ("run_chain_depth", "UPDATE run SET chain_depth = 1"),
    ("run_coalesce_key", "UPDATE run SET coalesce_key = 'x' WHERE id = %(first_held)s"),
    ("connection_grant", "UPDATE connection SET grant_type = 'headers' WHERE issuer IS NOT NULL"),
    *(
        (
            "connection_grant",
            f"UPDATE connection SET grant_type = 'client_credentials', {change} WHERE issuer IS NOT NULL",
        )
        for change in (
            "client_given = false",
            "client_given = true, client_id = NULL",
            "client_given = true, grant_secrets = NULL, grant_secrets_key_id = NULL",
        )
    ),
    *(
        ("connection_status", f"UPDATE connection SET {change} WHERE issuer IS NOT NULL")
        for change in (
            "status = 'unauthorized', refresh_at = NULL",
            "status = 'failing'",
            "status = 'needs_login', refresh_at = NULL, error = 'x'",
            f"{_NO_TOKEN}, status = 'needs_login', refresh_at = NULL",
            f"{_NO_TOKEN}, status = 'connected'",
        )
    ),
    (
        "connection_status",
        "UPDATE connection SET status = 'failing', error = 'x' WHERE issuer IS NULL",
    ),
    *(
        ("connection_token_has_times", f"UPDATE connection SET {change}")
        for change in (
            "access_expires_at = NULL WHERE issuer IS NOT NULL",
            "fresh_until = NULL WHERE issuer IS NOT NULL",
            "access_expires_at = now(), fresh_until = now() WHERE issuer IS NULL",
        )
    ),
    *(
        ("connection_refreshed", f"UPDATE connection SET {change}")
        for change in (
            "status = 'magic' WHERE issuer IS NOT NULL",
            "refresh_at = NULL WHERE issuer IS NOT NULL",
            f"{_NO_TOKEN}, status = 'needs_login', error = 'x' WHERE issuer IS NOT NULL",
            f"{_NO_TOKEN}, status = 'unauthorized' WHERE issuer IS NOT NULL",
            (
                f"{_NO_TOKEN}, status = 'unauthorized', refresh_at = NULL, grant_type = 'client_credentials',"
                " client_given = true WHERE issuer IS NOT NULL"
            ),
            "refresh_at = now() WHERE issuer IS NULL",
        )
    ),
    *(
        ("connection_lease", f"UPDATE connection SET {change} WHERE issuer IS NOT NULL")
        for change in ("lease_id = id", "leased_until = now()", "is_second_try = true")
    ),
    ("connection_headers_has_a_key", "UPDATE connection SET headers_key_id = NULL"),
    (
        "connection_grant_secrets_has_a_key",
        "UPDATE connection SET grant_secrets = NULL WHERE issuer IS NOT NULL",
    ),
    *(
        (
            name,
            (
                "INSERT INTO connection_authorization (id, environment_id, connection_id, state_digest, session_id,"
                " redirect_uri, expires_at, secrets, secrets_key_id, sends_issuer)"
                f" SELECT gen_random_uuid(), environment_id, connection_id, {values},"
                " redirect_uri, expires_at, secrets, secrets_key_id, sends_issuer"
                " FROM connection_authorization"
            ),
        )
        for name, values in (
            ("connection_authorization_state_digest_key", "state_digest, id"),
            ("connection_authorization_once_a_session", "'other', session_id"),
        )
    ),
    ("connection_authorization_due", "UPDATE connection_authorization SET due_at = now()"),
    (
        "connection_authorization_carried_has_a_key",
        "UPDATE connection_authorization SET carried_key_id = NULL",
    ),
    ("revocation_pending_is_due", "UPDATE connection_revocation SET next_attempt_at = NULL"),
    (
        "revocation_delivered_at",
        (
            "UPDATE connection_revocation SET status = 'delivered', next_attempt_at = NULL, request = NULL,"
            " request_key_id = NULL"
        ),
    ),
    (
        "connection_revocation_request_has_a_key",
        "UPDATE connection_revocation SET request_key_id = NULL",
    ),
    *(
        ("connection_revocation_is_forgotten", f"UPDATE connection_revocation SET {change}")
        for change in (
            "request = NULL, request_key_id = NULL",
            "status = 'dead', next_attempt_at = NULL",
        )
    ),
    (
        "connection_revocation_attempt_has_an_end",
        "UPDATE connection_revocation_attempt SET status_code = NULL",
    ),
    # The copy of a trigger of its connection's URL stays equal.
    *(
        (
            "trigger_connection_in_environment",
            f"UPDATE {table} SET mcp_url = 'https://other.example/'",
        )
        for table in ("connection", "trigger")
    ),
    ("channel_kind", "UPDATE channel SET kind = 'pigeon'"),
    *(
        ("channel_has_a_target", f"UPDATE channel SET {change}")
        for change in (
            "url = NULL, url_key_id = NULL",
            "emails = '{on-call@example.com}'",
            "kind = 'email', secret = NULL, secret_key_id = NULL",
            "kind = 'email', emails = '{on-call@example.com}', secret = NULL, secret_key_id = NULL",
            (
                "kind = 'email', url = NULL, url_key_id = NULL, secret = NULL, secret_key_id = NULL,"
                " emails = '{}'"
            ),
        )
    ),
    ("channel_url_has_a_key", "UPDATE channel SET url_key_id = NULL"),
    ("channel_url_has_a_key", "UPDATE channel SET url = NULL, deleted_at = now()"),
    ("channel_secret_has_a_key", "UPDATE channel SET secret_key_id = NULL"),
    ("channel_secret_has_a_key", "UPDATE channel SET secret = NULL"),
    ("channel_secret_has_a_key", "UPDATE channel SET kind = 'slack'"),
    ("channel_summary_is_due", "UPDATE channel SET summary_due_at = now(), summary_since = now()"),
    ("channel_summary_is_due", "UPDATE channel SET summary = '{}', summary_due_at = now()"),
    ("channel_error_has_a_time", "UPDATE channel SET last_error = 'refused'"),
    ("notice_pending_is_due", "UPDATE notice SET next_attempt_at = NULL"),
    ("notice_pending_is_due", "UPDATE notice SET status = 'dead'"),
    ("notice_pending_is_due", "UPDATE notice SET status = 'lost', next_attempt_at = NULL"),
    ("notice_delivered_at", "UPDATE notice SET delivered_at = now()"),
    ("notice_delivered_at", "UPDATE notice SET status = 'delivered', next_attempt_at = NULL"),
    (
        "notice_digested_has_a_digest",
        "UPDATE notice SET status = 'digested', next_attempt_at = NULL",
    ),
    ("notice_digested_has_a_digest", "UPDATE notice SET digest_id = id"),
    ("notice_one_open_digest", "UPDATE notice SET event = 'channel.digest'"),
    ("notice_attempt_has_an_end", "UPDATE notice_attempt SET status_code = NULL"),
    ("asked_address_once_an_environment", "UPDATE asked_address SET address = 'new@example.com'"),
]

# (table, column, table it refers to) for every reference that must stay within its environment.
TENANT_REFERENCES = [
    ("trigger", "worker_id", "worker"),
    ("trigger", "pool_id", "pool"),
    ("trigger", "revision_id", "trigger_revision"),
    ("trigger", "connection_id", "connection"),
    ("trigger", "mcp_key_id", "data_key"),
    ("trigger", "webhook_key_id", "data_key"),
    ("trigger_revision", "trigger_id", "trigger"),
    ("run", "trigger_id", "trigger"),
    ("run", "revision_id", "trigger_revision"),
    ("run", "worker_id", "worker"),
    ("run", "pool_id", "pool"),
    ("run", "avoided_worker_id", "worker"),
    ("run", "retry_of_id", "run"),
    ("run", "rerun_of_id", "run"),
    ("run_text", "run_id", "run"),
    ("approval", "run_id", "run"),
    ("approval", "trigger_id", "trigger"),
    ("run_result", "run_id", "run"),
    ("run_event_log", "run_id", "run"),
    ("idempotency_key", "trigger_id", "trigger"),
    ("idempotency_key", "run_id", "run"),
    ("delivery", "trigger_id", "trigger"),
    ("delivery", "run_id", "run"),
    ("delivery_attempt", "delivery_id", "delivery"),
    ("tick", "trigger_id", "trigger"),
    ("tick", "run_id", "run"),
    ("tick", "blocked_by_id", "run"),
    ("trigger_health", "trigger_id", "trigger"),
    ("budget", "trigger_id", "trigger"),
    ("budget_window", "budget_id", "budget"),
    ("run_reservation", "run_id", "run"),
    ("run_reservation", "window_id", "budget_window"),
    ("api_key", "parent_id", "api_key"),
    ("worker", "host_key_id", "api_key"),
    ("enrollment", "worker_id", "worker"),
    ("worker_event", "worker_id", "worker"),
    ("worker_silence", "worker_id", "worker"),
    ("pool_member", "pool_id", "pool"),
    ("pool_member", "worker_id", "worker"),
    ("connection", "headers_key_id", "data_key"),
    ("event_source", "secrets_key_id", "data_key"),
    ("event_key", "source_id", "event_source"),
    ("refused_request", "source_id", "event_source"),
    ("event", "source_id", "event_source"),
    ("event", "run_id", "run"),
    ("event", "replay_of_id", "event"),
    ("listener", "trigger_id", "trigger"),
    ("listener", "source_id", "event_source"),
    ("listener", "upstream_id", "trigger"),
    ("event_decision", "event_id", "event"),
    ("event_decision", "source_id", "event_source"),
    ("event_decision", "trigger_id", "trigger"),
    ("event_decision", "run_id", "run"),
    ("connection", "grant_secrets_key_id", "data_key"),
    ("connection_authorization", "connection_id", "connection"),
    ("connection_authorization", "secrets_key_id", "data_key"),
    ("connection_authorization", "carried_key_id", "data_key"),
    ("connection_revocation", "request_key_id", "data_key"),
    ("connection_revocation_attempt", "revocation_id", "connection_revocation"),
    ("channel", "url_key_id", "data_key"),
    ("channel", "secret_key_id", "data_key"),
    ("notice", "channel_id", "channel"),
    ("notice_attempt", "notice_id", "notice"),
]


@pytest.fixture
def there(cast: Cast) -> dict[str, UUID]:
    """Makes a row in every table, and returns the ids that the statements above name."""
    runs = Runs.of(
        cast, mcp_headers={"x-api-key": "a-planted-secret"}, webhook_secret="0123456789abcdef"
    )
    allow(cast.worker.worker_id, 9)
    cast.mint("pwk")
    lost, other_lost = runs.running(), runs.running(payload={"a": 1})
    runs.complete(runs.running(), output={"a": 1})
    asked_twice = runs.decided(approve=False)
    runs.claim(asked_twice)
    runs.ask(asked_twice)
    runs.lost(lost)
    RunEventLog.objects.create(environment=cast.environment, run_id=lost)
    other_retry = runs.retry_of(other_lost)
    assert other_retry is not None
    rerun_run(run_id=lost, caller_id=cast.owner.id, key=None, source=Source.MANUAL, actor=SYSTEM)
    run_trigger(
        trigger_id=runs.trigger_id,
        caller_id=cast.owner.id,
        key="key",
        payload=None,
        source=Source.MANUAL,
        actor=SYSTEM,
    )
    DeliveryAttempt.objects.create(
        environment=cast.environment,
        delivery=Delivery.objects.filter(run_id=lost).get(),
        n=1,
        at=NOON,
        status_code=200,
        duration_ms=5,
    )
    for minute, decision in enumerate((Decision.FIRED, Decision.SKIPPED_OVERLAP)):
        tick_at = NOON.replace(minute=minute)
        Tick.objects.create(
            environment=cast.environment,
            trigger_id=runs.trigger_id,
            tick_at=tick_at,
            last_tick_at=tick_at,
            decision=decision,
            run_id=lost if decision is Decision.FIRED else None,
            blocked_by_id=None if decision is Decision.FIRED else lost,
        )
    for _ in range(2):
        open_incident(cast)
    NoticeAttempt.objects.create(
        environment=cast.environment,
        notice_id=_noticed(cast)["notice"],
        n=1,
        at=NOON,
        status_code=200,
        duration_ms=5,
    )
    _budgeted(cast, runs.trigger_id)
    add_every_row(cast, cast.add_trigger(), runs.trigger_id, lost)
    # A second row of each, so that two could have the same key.
    add_budget(cast, trigger_id=runs.trigger_id)
    add_channel(cast)
    add_source(cast)
    cast.add_trigger(connection_id=add_connection(cast), mcp_url=CONNECTION_URL)
    revocation_id = _granted(cast)["connection_revocation"]
    RevocationAttempt.objects.create(
        environment=cast.environment,
        revocation_id=revocation_id,
        n=1,
        at=NOON,
        status_code=503,
        duration_ms=5,
    )
    for address in ("first@example.com", "second@example.com"):
        asked_token(cast, address)
        invite_for_test(cast.environment, cast.owner, address)
    host = cast.host()
    issue_enrollment(cast.environment, cast.owner)
    WorkerEvent.objects.create(
        environment=cast.environment, worker_id=host.worker_id, type="worker.stopped"
    )
    WorkerSilence.objects.create(
        environment=cast.environment, worker_id=host.worker_id, offline_at=NOON, ended_at=NOON
    )
    pool_id, _ = add_pool(cast, cast.worker.worker_id, name="linux"), add_pool(cast)
    pooled = Runs.of(cast, worker_id=None, pool_id=pool_id).queue()
    Run.objects.filter(id=pooled).update(avoided_worker=cast.worker.worker_id)
    for _ in range(2):
        begin_pairing(label=None, address=None, program=None)
    mint_registration_token(
        environment_id=cast.environment.id,
        label=None,
        actor=Actor("api_key", ApiKey.objects.get(kind="hos").id),
    )
    return {
        "environment": cast.environment.id,
        "owner": cast.owner.id,
        "worker": cast.worker.worker_id,
        "second_worker": cast.register("host-2").worker_id,
        "pool": pool_id,
        "data_key": DataKey.objects.get(environment=cast.environment).id,
        "lost": lost,
        "other_retry": other_retry["id"],
        "first_held": runs.claimed(),
        "second_held": runs.claimed(),
    }


@pytest.fixture
def strange(cast: Cast) -> dict[str, UUID]:
    """Returns the ids of rows of another environment, by table."""
    environment = replace(cast, environment=cast.strange_environment, owner=cast.stranger)
    worker_id = register(environment.mint("wrk"), "host-1").worker_id
    trigger_id = environment.add_trigger(worker_id=worker_id, webhook_url=WEBHOOK_URL)
    runs = Runs(environment, trigger_id)
    run_id = runs.queue()
    runs.cancel(run_id)
    return {
        "worker": worker_id,
        "pool": add_pool(environment),
        "api_key": ApiKey.objects.get(environment=cast.strange_environment, kind="wrk").id,
        "trigger": trigger_id,
        **_granted(environment),
        "trigger_revision": Trigger.objects.get(id=trigger_id).revision_id,
        "data_key": DataKey.objects.get(environment=cast.strange_environment).id,
        "run": run_id,
        "delivery": runs.deliveries(run_id)[0]["id"],
        **add_every_row(
            environment, environment.add_trigger(worker_id=worker_id), trigger_id, run_id
        ),
        **_noticed(environment),
        **_budgeted(environment, trigger_id),
    }


@cases("state", sorted({state for _, state, _ in WRONG_RUNS}), undone=True)
def test_no_run_can_be_like_this(runs: Runs, state: str, subtests: pytest.Subtests) -> None:
    run_id = STATES[state](runs)
    for constraint, of_state, change in WRONG_RUNS:
        if of_state == state:
            with subtests.test(change):
                statement = f"UPDATE run SET {change} WHERE id = %(id)s"
                assert _refusal(statement, {"id": run_id}) == constraint


def test_no_row_can_be_like_this(there: dict[str, UUID], subtests: pytest.Subtests) -> None:
    for constraint, statement in WRONG_ROWS:
        with subtests.test(statement):
            assert _refusal(statement, there) == constraint


@cases("state", STATES, undone=True)
def test_no_run_comes_into_another_kind_of_state_by_its_status_alone(
    runs: Runs, state: str
) -> None:
    run_id = STATES[state](runs)
    status = runs.stored(run_id)["status"]
    for other in (*Status.values, "lost", ""):
        if _kind(other) != _kind(status):
            params = {"id": run_id, "status": other}
            assert _refusal("UPDATE run SET status = %(status)s WHERE id = %(id)s", params), other


def test_no_row_can_refer_to_another_environments(
    there: dict[str, UUID], strange: dict[str, UUID], subtests: pytest.Subtests
) -> None:
    for table, column, target in TENANT_REFERENCES:
        refers = (
            f"UPDATE {table} SET {column} = %(strange)s WHERE ctid = (SELECT ctid FROM {table}"
            f" WHERE environment_id = %(environment)s AND {column} IS NOT NULL LIMIT 1)"
        )
        with subtests.test(f"{table}.{column}"):
            params = {"strange": strange[target], "environment": there["environment"]}
            assert _refusal(refers, params) == _key(table, column)


@cases(
    "statement",
    [
        "UPDATE membership SET role = 'admin' WHERE role = 'owner'",
        "DELETE FROM membership WHERE role = 'owner'",
        "DELETE FROM membership",
    ],
    undone=True,
)
def test_an_environment_keeps_an_owner(cast: Cast, statement: str) -> None:
    assert _refusal(statement, {}) == "membership_keeps_an_owner"


def test_an_owner_may_make_room_for_another_in_one_transaction(cast: Cast) -> None:
    swap = (
        "UPDATE membership SET role = CASE role WHEN 'owner' THEN 'admin' ELSE 'owner' END"
        " WHERE environment_id = %(id)s AND role IN ('owner', 'admin')"
    )
    assert _refusal(swap, {"id": cast.environment.id}) is None


def test_every_constraint_is_tried(db: None) -> None:
    tried = {constraint for constraint, *_ in (*WRONG_RUNS, *WRONG_ROWS)}
    tried |= {_key(table, column) for table, column, _ in TENANT_REFERENCES}
    # What a trigger of the database refuses is in no catalogue of constraints.
    known = {*_constraints(), "data_key_in_use_stays"}
    assert tried == known, (
        f"{tried ^ known}: put a row that it refuses into WRONG_RUNS or WRONG_ROWS of this file"
        ' (CONTRIBUTING.md, "A CHECK")'
    )


def _noticed(cast: Cast) -> dict[str, UUID]:
    """Adds a channel with two notices to the cast's environment. Returns the ids of the channel and of one notice."""
    channel = add_channel(cast, "webhook", secret=CHANNEL_SECRET)
    owner = Actor("user", cast.owner.id)
    for _ in range(2):
        (notice_id,) = services.test_channel(channel_id=channel.id, actor=owner)
    return {"channel": channel.id, "notice": notice_id}


def _granted(cast: Cast) -> dict[str, UUID]:
    """Adds a connection with a token, that somebody authorizes anew, and the revocation of an earlier token. Returns
    the ids of the connection and the revocation.
    """
    connection = add_oauth_connection(cast)
    sealed = {"environment": cast.environment, "connection_id": connection.id}
    box, key_id = bytes(connection.headers or b""), connection.headers_key_id
    assert key_id is not None
    Authorization.objects.create(
        stage=Authorization.Stage.READY,
        carried=box,
        carried_key_id=key_id,
        **sealed,
        state_digest=new_id().bytes,
        session_id=new_id(),
        redirect_uri="https://pipedai.example/callback",
        expires_at=NOON,
        secrets=box,
        secrets_key_id=key_id,
        sends_issuer=False,
    )
    revocation = Revocation.objects.create(
        **sealed, host="issuer.example", purpose="token", request=box, request_key_id=key_id
    )
    return {"connection": connection.id, "connection_revocation": revocation.id}


def _budgeted(cast: Cast, trigger_id: UUID) -> dict[str, UUID]:
    """Adds a budget with a window of May 3rd to the cast's environment. Returns the ids of both."""
    budget = add_budget(cast, trigger_id=trigger_id)
    day_before = NOON.replace(day=3, hour=0)
    window = BudgetWindow.objects.create(
        environment=cast.environment,
        budget=budget,
        generation=0,
        starts_at=day_before,
        ends_at=NOON.replace(hour=0),
    )
    return {"budget": budget.id, "budget_window": window.id}


def _constraints() -> set[str]:
    """Returns the names of all checks, unique indexes and tenant references of the tenants' tables.

    It leaves out those that no test can violate: Django's own checks that a number is not negative, and
    the unique `(environment_id, id)` to which the tenant references refer, one of them with the `mcp_url`.
    """
    rows = fetch_all(
        """
        WITH tables AS (
            SELECT format('%%I', table_name)::regclass AS oid FROM information_schema.columns
            WHERE table_schema = current_schema() AND column_name = 'environment_id' AND table_name NOT LIKE 'audit_%%'
            UNION SELECT 'environment'::regclass)
        SELECT conname AS name FROM pg_constraint JOIN tables ON tables.oid = conrelid
        WHERE contype = 'c' AND conname NOT LIKE '%%\\_check' OR contype = 'f' AND cardinality(conkey) > 1
        UNION
        SELECT indexrelid::regclass::text FROM pg_index JOIN tables ON tables.oid = indrelid
        WHERE indisunique AND NOT indisprimary
            AND pg_get_indexdef(indexrelid) NOT SIMILAR TO '%%\\(environment_id, id(, mcp_url)?\\)'
        """,
        {},
    )
    return {row["name"] for row in rows}


def _refusal(statement: str, params: Mapping[str, Any]) -> str | None:
    """Returns the name of the constraint that refuses a statement, or None if the database accepts it."""
    try:
        with transaction.atomic():
            touched = execute(statement, params)
            execute("SET CONSTRAINTS ALL IMMEDIATE", {})
            transaction.set_rollback(True)
    except IntegrityError as error:
        cause = error.__cause__
        assert isinstance(cause, psycopg.Error)
        return cause.diag.constraint_name
    assert touched, "the statement touched nothing"
    return None


def _key(table: str, column: str) -> str:
    return f"{table}_{column.removesuffix('_id')}_in_environment"


def _kind(status: str) -> str:
    """Returns the kind of status that the constraints tell apart; to them all ends are the same."""
    return "ended" if status in TERMINAL else status
