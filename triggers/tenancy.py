"""Tells to which environment each row of the app belongs, and checks ids in filters by it."""

from datetime import tzinfo
from typing import Any
from uuid import UUID

from django.apps import apps

from pipedai.api.errors import Invalid
from pipedai.api.filters import (
    ApiFilterSet,
)
from pipedai.clocks import zone_of
from pipedai.sql import fetch_one
from triggers.models import EventSource, Trigger
from workspaces.models import Connection

# Each is a `row` of TenantViewSet. ALL_TRIGGERS includes deleted triggers, because the runs of a deleted trigger can
# still be read. Its deliveries can't.
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
    """Returns the time zone of a trigger, in which times without an offset are read where the trigger is addressed. It
    is UTC if there is no such trigger.
    """
    row = fetch_one("SELECT timezone FROM trigger WHERE id = %(id)s", {"id": trigger_id})
    return zone_of("UTC" if row is None else row["timezone"])


def check_tenant_ids(environment_id: UUID, filters: ApiFilterSet) -> None:
    """Raises Invalid if a filter names a row that the environment does not have. The message is the same whether the
    row exists elsewhere or not, so that nobody learns which ids exist.
    """
    models: dict[str, list[Any]] = {
        "workerId": [apps.get_model("workers", "Worker")],
        "poolId": [apps.get_model("workers", "Pool")],
        "connectionId": [Connection],
        "triggerId": [Trigger],
        "sourceId": [EventSource],
        "listensTo": [EventSource, Trigger],
    }
    for name, found in models.items():
        value = filters.values.get(name)
        if value and not any(
            model._default_manager.filter(environment_id=environment_id, id=value).exists()
            for model in found
        ):
            raise Invalid({name: ["No such id in this environment."]})
