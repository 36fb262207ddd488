"""Tells to which environment each row of the app belongs."""

from typing import Any

from rest_framework.request import Request

from pipedai.api.principal import principal_of
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


class OneTriggerViewSet(TenantViewSet):
    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Raises NotFound, also for a deleted trigger."""
        self.access = find_visible(principal_of(request), LIVE_TRIGGERS, kwargs["trigger_id"])
