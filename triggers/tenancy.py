"""Says which environment each row belongs to, in SQL for `TenantViewSet._find_visible`."""

# The deliveries of a deleted trigger are gone with it; its runs stay.
ALL_TRIGGERS = "SELECT id, environment_id FROM trigger"
LIVE_TRIGGERS = f"{ALL_TRIGGERS} WHERE deleted_at IS NULL"
ALL_RUNS = "SELECT id, environment_id FROM run"
LIVE_DELIVERIES = """
SELECT d.id, d.environment_id FROM delivery d JOIN trigger t ON t.id = d.trigger_id WHERE t.deleted_at IS NULL
"""
