"""Tells to which environment each row of the app belongs."""

from datetime import tzinfo
from uuid import UUID

from pipedai.clocks import zone_of
from pipedai.sql import fetch_one

# Each of these is a `row` of TenantViewSet. ALL_TRIGGERS includes deleted triggers, because the runs of a deleted
# trigger can still be read. Its deliveries can't.
ALL_TRIGGERS = ("trigger_id", "SELECT id, environment_id FROM trigger")

LIVE_TRIGGERS = ("trigger_id", "SELECT id, environment_id FROM trigger WHERE deleted_at IS NULL")

ALL_RUNS = ("run_id", "SELECT id, environment_id FROM run")

ALL_APPROVALS = ("approval_id", "SELECT id, environment_id FROM approval")

LIVE_DELIVERIES = (
    "delivery_id",
    """
SELECT d.id, d.environment_id FROM delivery d JOIN trigger t ON t.id = d.trigger_id WHERE t.deleted_at IS NULL
""",
)


def zone_of_trigger(trigger_id: UUID) -> tzinfo:
    """Returns the time zone of a trigger, or UTC if there is no such trigger. A request about the trigger means this
    zone if it gives a time without an offset.
    """
    row = fetch_one("SELECT timezone FROM trigger WHERE id = %(id)s", {"id": trigger_id})
    return zone_of("UTC" if row is None else row["timezone"])
