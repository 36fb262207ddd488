"""SELECT statements that tell to which environment each row belongs; `workspaces.access.find_visible` takes them."""

# Includes deleted triggers, because their runs can still be read. Their deliveries can't.
ALL_TRIGGERS = "SELECT id, environment_id FROM trigger"
LIVE_TRIGGERS = f"{ALL_TRIGGERS} WHERE deleted_at IS NULL"
ALL_RUNS = "SELECT id, environment_id FROM run"
LIVE_DELIVERIES = """
SELECT d.id, d.environment_id FROM delivery d JOIN trigger t ON t.id = d.trigger_id WHERE t.deleted_at IS NULL
"""
