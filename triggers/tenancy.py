"""Tells to which environment each row of the app belongs."""

from datetime import tzinfo
from typing import Any
from uuid import UUID

from rest_framework.request import Request

from pipedai.api.principal import principal_of
from pipedai.clocks import zone_of
from pipedai.sql import fetch_one
from workspaces.access import TenantViewSet, find_visible

# `find_visible` takes these SELECT statements as its parameter `rows`, to find the environment of a row. ALL_TRIGGERS
# includes deleted triggers, because the runs of a deleted trigger can still be read. Its deliveries can't.
ALL_TRIGGERS = "SELECT id, environment_id FROM trigger"
LIVE_TRIGGERS = f"{ALL_TRIGGERS} WHERE deleted_at IS NULL"
ALL_RUNS = "SELECT id, environment_id FROM run"
LIVE_BUDGETS = "SELECT id, environment_id FROM budget WHERE deleted_at IS NULL"
LIVE_DELIVERIES = """
SELECT d.id, d.environment_id FROM delivery d JOIN trigger t ON t.id = d.trigger_id WHERE t.deleted_at IS NULL
"""


def zone_of_trigger(trigger_id: UUID) -> tzinfo:
    """Returns the time zone of a trigger, in which times without an offset are read where the trigger is addressed. It
    is UTC if there is no such trigger.
    """
    row = fetch_one("SELECT timezone FROM trigger WHERE id = %(id)s", {"id": trigger_id})
    return zone_of("UTC" if row is None else row["timezone"])


class OneTriggerViewSet(TenantViewSet):
    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Raises NotFound, also for a deleted trigger."""
        self.access = find_visible(principal_of(request), LIVE_TRIGGERS, kwargs["trigger_id"])
